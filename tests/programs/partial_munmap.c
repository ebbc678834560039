/* munmap of the middle of a mapping leaves both sides, and what was stored in the middle, alive. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "partial_munmap");
    char page[PAGE];
    if (command.write) {
        int fd = make_pages(path, 12);
        char *map = map_or_fail(fd, 12 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
        map[0] = map[5 * PAGE] = map[11 * PAGE] = 's';
        check(munmap(map + 4 * PAGE, 4 * PAGE) == 0, "the middle is unmapped");
        check(touch(map + 4 * PAGE, 0) == SIGSEGV && touch(map + 8 * PAGE - 1, 0) == SIGSEGV,
              "loads there are SIGSEGV");
        check(map[0] == 's' && all(map + 3 * PAGE, PAGE, 'D'), "the left side lives");
        check(map[11 * PAGE] == 's' && all(map + 8 * PAGE, PAGE, 'I'), "the right side lives");
        check(pread(fd, page, 2, 5 * PAGE) == 2 && memcmp(page, "sF", 2) == 0, "the file has the store");
        map[9 * PAGE] = 'r';
        check(munmap(map, 4 * PAGE) == 0 && map[9 * PAGE] == 'r', "the right side lives without the left");
        char *again = mmap(map + 4 * PAGE, 4 * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 4 * PAGE);
        check(again == map + 4 * PAGE && again[PAGE] == 's' && all(again + 2 * PAGE, PAGE, 'G'),
              "the middle can be mapped again in its place");
        check(msync(map + 4 * PAGE, 8 * PAGE, MS_SYNC) == 0 && munmap(map + 4 * PAGE, 8 * PAGE) == 0,
              "msync and munmap across the two");
        close(fd);
    }
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDONLY);
    check(pread(fd, page, 2, 0) == 2 && memcmp(page, "sA", 2) == 0, "the left store is kept");
    check(pread(fd, page, 2, 5 * PAGE) == 2 && memcmp(page, "sF", 2) == 0, "the middle one");
    check(pread(fd, page, 2, 9 * PAGE) == 2 && memcmp(page, "rJ", 2) == 0, "the right one");
    return unlink(path) != 0;
}
