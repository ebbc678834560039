/* fork: shared mappings stay shared both ways, in pages touched before and in those that were not. */
#include "program.h"

enum { PAGES = 16 };

static int child_of(char *map, int fd)
{
    if (map[0] != 'p' || !all(map + 1, PAGE - 1, 'A'))
        return 1; /* a page that the parent touched */
    if (!all(map + 4 * PAGE, PAGE, 'E') || !all(map + 15 * PAGE, PAGE, 'P'))
        return 2; /* pages that nobody touched: never zeros */
    map[5 * PAGE] = 'c';
    map[PAGE + 1] = 'c';
    return pwrite(fd, "c", 1, 6 * PAGE) == 1 ? 0 : 3;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "fork_child_sees_and_writes");
    if (command.write)
        close(make_pages(path, PAGES));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    map[0] = 'p';
    need(map[PAGE] == 'B', "load");
    pid_t child = fork();
    if (child == 0)
        _exit(child_of(map, fd));
    check(wait_for(child) == 0, "the child sees the parent's stores and the file's pages");
    check(map[5 * PAGE] == 'c' && map[5 * PAGE + 1] == 'F', "a store of the child is seen here");
    check(map[PAGE] == 'B' && map[PAGE + 1] == 'c', "in a page that was loaded before, too");
    check(map[6 * PAGE] == 'c' && map[6 * PAGE + 1] == 'G', "and what the child wrote");
    check(all(map + 4 * PAGE, PAGE, 'E') && all(map + 15 * PAGE, PAGE, 'P'),
          "pages that the child touched first are what the file had");
    check(all(map + 9 * PAGE, PAGE, 'J'), "as is one that nobody touched");

    child = fork();
    if (child == 0)
        _exit(execl("/bin/true", "true", (char *)NULL));
    check(wait_for(child) == 0 && map[0] == 'p' && all(map + 10 * PAGE, PAGE, 'K'),
          "a child that runs another program changes nothing");
    check(msync(map, PAGES * PAGE, MS_SYNC) == 0, "msync writes back what both did");
    return unlink(path) != 0;
}
