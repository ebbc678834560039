/* fork: a private mapping is copied on write; neither side sees what the other stores afterwards. */
#include "program.h"

static int child_of(char *map)
{
    if (map[0] != 'p' || map[1] != 'A')
        return 1; /* the parent's private page, as it was at the fork */
    if (!all(map + 2 * PAGE, PAGE, 'C'))
        return 2; /* a page that nobody touched */
    memset(map, 'c', PAGE);
    memset(map + 3 * PAGE, 'c', PAGE);
    return all(map, PAGE, 'c') && all(map + 3 * PAGE, PAGE, 'c') ? 0 : 3;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "fork_private_cow");
    if (command.write)
        close(make_pages(path, 6));
    if (!command.check)
        return 0;

    char page[PAGE];
    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    map[0] = 'p';
    need(map[PAGE] == 'B', "load");
    pid_t child = fork();
    if (child == 0)
        _exit(child_of(map));
    check(wait_for(child) == 0, "the child has the parent's private page and the file's others");
    check(map[0] == 'p' && all(map + 1, PAGE - 1, 'A'), "its store to that page is not seen here");
    check(all(map + 3 * PAGE, PAGE, 'D'), "nor that to a page nobody had touched");
    check(all(map + PAGE, PAGE, 'B') && all(map + 5 * PAGE, PAGE, 'F'), "the other pages are the file's");
    check(pread(fd, page, PAGE, 0) == PAGE && all(page, PAGE, 'A') && pread(fd, page, PAGE, 3 * PAGE) == PAGE
              && all(page, PAGE, 'D'), "and the file has neither store");
    map[3 * PAGE] = 'p';
    check(map[3 * PAGE] == 'p' && map[3 * PAGE + 1] == 'D', "the parent stores privately after the fork");
    return unlink(path) != 0;
}
