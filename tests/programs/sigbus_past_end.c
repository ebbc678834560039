/* A load or store in a page wholly beyond the end of the file is SIGBUS; growing the file makes it valid. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "sigbus_past_end");
    if (command.write)
        close(make_pages(path, 2));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    char *private = map_or_fail(fd, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    check(touch(map + 2 * PAGE - 1, 0) == 0, "the last byte can be loaded");
    check(touch(map + 2 * PAGE, 0) == SIGBUS, "the byte after it is SIGBUS");
    check(touch(map + 5 * PAGE, 1) == SIGBUS, "so is a store further on");
    check(touch(private + 2 * PAGE, 0) == SIGBUS && touch(private + 3 * PAGE, 1) == SIGBUS,
          "and both in a private mapping");
    check(all(map, PAGE, 'A') && all(map + PAGE, PAGE, 'B'), "the file is as it was");

    need(ftruncate(fd, 2 * PAGE + 1) == 0, "ftruncate");
    check(touch(map + 3 * PAGE - 1, 0) == 0, "one byte more makes its whole page valid");
    check(touch(map + 3 * PAGE, 0) == SIGBUS, "and no other");
    need(ftruncate(fd, 6 * PAGE) == 0, "ftruncate");
    check(touch(map + 5 * PAGE, 1) == 0 && map[5 * PAGE] == 'T', "in a file that grew, a store works");
    need(ftruncate(fd, PAGE) == 0, "ftruncate");
    check(touch(map + PAGE, 0) == SIGBUS && touch(map, 0) == 0, "in a file that shrank, it is SIGBUS again");
    return unlink(path) != 0;
}
