/* MADV_DONTNEED of a shared mapping throws nothing away; of a private one, the private copies only. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "madvise_dontneed_shared_keeps");
    char page[PAGE];
    if (command.write) {
        int fd = make_pages(path, 8);
        char *map = map_or_fail(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
        memset(map + 2 * PAGE, 's', PAGE);
        check(madvise(map, 8 * PAGE, MADV_DONTNEED) == 0, "MADV_DONTNEED");
        check(all(map + 2 * PAGE, PAGE, 's'), "a store from before is still seen");
        check(all(map + 3 * PAGE, PAGE, 'D'), "a page nobody touched is the file's");
        map[5 * PAGE] = 't';
        check(madvise(map, 8 * PAGE, MADV_DONTNEED) == 0 && msync(map, 8 * PAGE, MS_SYNC) == 0,
              "stored, dropped, and only then synced");
        const int advice[] = {MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_NORMAL};
        for (int i = 0; i < 4; i++)
            need(madvise(map, 8 * PAGE, advice[i]) == 0, "madvise");
        check(map[5 * PAGE] == 't' && map[5 * PAGE + 1] == 'F', "other advice changes nothing");

        char *private = map_or_fail(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
        private[PAGE] = 'p';
        check(madvise(private, 8 * PAGE, MADV_DONTNEED) == 0 && all(private + PAGE, PAGE, 'B'),
              "a private copy is dropped and the file shows again");
        check(madvise(map + 1, PAGE, MADV_DONTNEED) == -1 && errno == EINVAL, "unaligned is EINVAL");
        close(fd);
    }
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDONLY);
    check(pread(fd, page, PAGE, 2 * PAGE) == PAGE && all(page, PAGE, 's'), "the next process reads it");
    check(pread(fd, page, 2, 5 * PAGE) == 2 && memcmp(page, "tF", 2) == 0, "and the other store");
    return unlink(path) != 0;
}
