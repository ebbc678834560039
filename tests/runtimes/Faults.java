import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/** A mapped file between null pointers: the JVM finds both by SIGSEGV. Usage: Faults FILE write|read */
class Faults {
    static final int PAGE = 4096, PAGES = 2048;

    static int length(String text) {
        return text.length();
    }

    public static void main(String[] arguments) throws Exception {
        boolean write = arguments[1].equals("write");
        try (FileChannel file = FileChannel.open(Path.of(arguments[0]), StandardOpenOption.CREATE,
                StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            MappedByteBuffer map = file.map(FileChannel.MapMode.READ_WRITE, 0, (long) PAGE * PAGES);
            long sum = 0, nulls = 0;
            for (int round = 0; round < 20; round++) {
                for (int page = 0; page < PAGES; page++) {
                    int at = page * PAGE + page;
                    if (write && round == 0)
                        map.put(at, (byte) page);
                    sum += map.get(at) & 0xff;
                    try {
                        nulls += length(page % 64 == 0 ? null : "x");
                    } catch (NullPointerException expected) {
                        nulls += 1000;
                    }
                }
                if (round % 5 == 0)
                    map.force();
            }
            System.out.println(sum + " " + nulls);
        }
    }
}
