/* PROT_NONE and PROT_READ make stores fault as the kernel's do; what the pages hold comes back unchanged. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "mprotect_none_and_back");
    if (command.write)
        close(make_pages(path, 8));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR), both = PROT_READ | PROT_WRITE;
    char *map = map_or_fail(fd, 8 * PAGE, both, MAP_SHARED);
    map[0] = 's';
    check(mprotect(map, 4 * PAGE, PROT_NONE) == 0, "mprotect to PROT_NONE");
    check(touch(map, 0) == SIGSEGV && touch(map + PAGE, 0) == SIGSEGV, "loads are SIGSEGV, touched or not");
    check(touch(map + 3 * PAGE, 1) == SIGSEGV, "so are stores");
    check(map[4 * PAGE] == 'E', "the pages after it are not");
    check(mprotect(map, 4 * PAGE, PROT_READ) == 0 && map[0] == 's' && all(map + PAGE, PAGE, 'B'),
          "back to PROT_READ, all is there");
    check(touch(map, 1) == SIGSEGV && touch(map + 2 * PAGE, 1) == SIGSEGV, "stores are SIGSEGV");
    check(mprotect(map, 4 * PAGE, both) == 0, "back to PROT_READ and PROT_WRITE");
    map[3 * PAGE] = 'x';
    check(map[3 * PAGE] == 'x' && map[3 * PAGE + 1] == 'D' && all(map + 2 * PAGE, PAGE, 'C'), "stores work");

    char *none = map_or_fail(fd, 8 * PAGE, PROT_NONE, MAP_SHARED);
    check(touch(none + 5 * PAGE, 0) == SIGSEGV, "a mapping made with PROT_NONE is SIGSEGV");
    check(mprotect(none, 8 * PAGE, both) == 0 && all(none + 5 * PAGE, PAGE, 'F') && none[3 * PAGE] == 'x',
          "and shows the file once it may");
    check(mprotect(map + 1, PAGE, both) == -1 && errno == EINVAL, "an unaligned address is EINVAL");
    check(mprotect(map, 0, PROT_NONE) == 0 && map[0] == 's', "length 0 does nothing");
    check(mprotect(map, PAGE, PROT_NONE) == 0 && msync(none, 8 * PAGE, MS_SYNC) == 0, "msync beside it");
    return unlink(path) != 0;
}
