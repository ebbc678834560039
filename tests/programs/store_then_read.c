/* What is stored through a mapping is what read, pread and readv return, without msync. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "store_then_read");
    if (command.write)
        close(make_pages(path, 6));
    if (!command.check)
        return 0;

    char bytes[2 * PAGE];
    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    map[0] = 'x';
    check(read(fd, bytes, 2) == 2 && memcmp(bytes, "xA", 2) == 0, "read sees a store");
    memset(map + 2 * PAGE, 'y', PAGE);
    check(pread(fd, bytes, PAGE, 2 * PAGE) == PAGE && all(bytes, PAGE, 'y'), "pread sees a stored page");
    memcpy(map + 4 * PAGE - 3, "spread", 6);
    check(pread(fd, bytes, 6, 4 * PAGE - 3) == 6 && memcmp(bytes, "spread", 6) == 0,
          "pread sees a store that crosses pages");
    check(pread(fd, bytes, 2 * PAGE, PAGE) == 2 * PAGE && all(bytes, PAGE, 'B')
              && all(bytes + PAGE, PAGE, 'y'),
          "an untouched page and a stored one come in one pread");

    int other = open_or_fail(path, O_RDONLY);
    check(pread(other, bytes, 6, 4 * PAGE - 3) == 6 && memcmp(bytes, "spread", 6) == 0,
          "another descriptor sees it too");
    need(munmap(map, 6 * PAGE) == 0, "munmap");
    check(pread(other, bytes, 1, 0) == 1 && bytes[0] == 'x', "and still after munmap");
    return unlink(path) != 0;
}
