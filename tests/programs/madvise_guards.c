/* The program's own guards (MADV_GUARD_INSTALL) on a file's mapping: no access, and afterwards all is there again. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "madvise_guards");
    const int both = PROT_READ | PROT_WRITE, install = 102, take_away = 103;
    if (command.write)
        close(make_pages(path, 16));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, 16 * PAGE, both, MAP_SHARED), *own = map_or_fail(fd, 4 * PAGE, both, MAP_PRIVATE);
    char *other = map_or_fail(fd, 16 * PAGE, both, MAP_SHARED), byte;
    map[2 * PAGE] = '2', own[PAGE] = 'p';
    check(madvise(map + 2 * PAGE, 4 * PAGE, install) == 0, "guards on pages that are here and that are not");
    check(touch(map + 2 * PAGE, 0) == SIGSEGV && touch(map + 5 * PAGE, 1) == SIGSEGV, "a touch is SIGSEGV");
    check(map[PAGE] == 'B' && map[6 * PAGE] == 'G', "beside them it works");
    check(other[2 * PAGE] == '2' && other[3 * PAGE] == 'D', "another mapping has none");
    check(pread(fd, &byte, 1, 2 * PAGE) == 1 && byte == '2', "and the file is as it was");
    need(mprotect(map, 16 * PAGE, PROT_READ) == 0, "mprotect");
    check(touch(map + 3 * PAGE, 0) == SIGSEGV && map[6 * PAGE] == 'G', "mprotect leaves them");
    need(mprotect(map, 16 * PAGE, both) == 0 && madvise(map, 16 * PAGE, MADV_DONTNEED) == 0, "madvise");
    check(touch(map + 3 * PAGE, 0) == SIGSEGV, "so does MADV_DONTNEED");
    pid_t child = fork();
    if (child == 0)
        _exit(touch(map + 4 * PAGE, 0));
    check(wait_for(child) == SIGSEGV, "a child has them, too");
    char *second = mremap(map, 0, 16 * PAGE, MREMAP_MAYMOVE);
    check(second != MAP_FAILED && second[3 * PAGE] == 'D', "a second mapping of the range has none");
    check(madvise(map, 3 * PAGE, take_away) == 0 && map[2 * PAGE] == '2' && touch(map + 3 * PAGE, 0) == SIGSEGV,
          "one is taken away");
    check(madvise(map, 16 * PAGE, take_away) == 0 && map[3 * PAGE] == 'D' && touch(map + 5 * PAGE, 1) == 0,
          "all are taken away");
    check(madvise(own, 2 * PAGE, install) == 0 && madvise(own, 2 * PAGE, take_away) == 0 && own[PAGE] == 'B',
          "they take the place of private copies");
    need(mlock(map, PAGE) == 0, "mlock");
    tell("guards on locked memory", madvise(map, PAGE, install));
    need(munmap(map, PAGE) == 0, "munmap");
    tell("guards on a hole", madvise(map, 2 * PAGE, install));
    return unlink(path) != 0;
}
