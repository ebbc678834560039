/* MADV_DONTFORK: a child does not have the range, its parent keeps it; MADV_DOFORK takes that back; unmapping forgets it. */
#include "program.h"

static int child_sees(char *at)
{
    pid_t child = fork();
    if (child == 0)
        _exit(touch(at, 0));
    return wait_for(child);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "madvise_fork_wishes");
    const int both = PROT_READ | PROT_WRITE;
    if (command.write)
        close(make_pages(path, 16));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, 16 * PAGE, both, MAP_SHARED), *own = map_or_fail(fd, 4 * PAGE, both, MAP_PRIVATE);
    check(child_sees(map + 5 * PAGE) == 0, "a child has the mapping");
    need(madvise(map + 4 * PAGE, 4 * PAGE, MADV_DONTFORK) == 0 && madvise(own, PAGE, MADV_DONTFORK) == 0, "madvise");
    check(child_sees(map + 5 * PAGE) == SIGSEGV && child_sees(own) == SIGSEGV, "what is kept is not in a child");
    check(child_sees(map + 3 * PAGE) == 0 && child_sees(map + 8 * PAGE) == 0 && child_sees(own + PAGE) == 0,
          "what lies beside it is");
    check(map[5 * PAGE] == 'F' && own[0] == 'A', "the parent has it");
    map[6 * PAGE] = '6';
    pid_t child = fork();
    if (child == 0) {
        char *again = mmap(map + 4 * PAGE, 4 * PAGE, both, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
        if (again != map + 4 * PAGE || again[0] != 'A')
            _exit(1);
        again[3 * PAGE] = 'd';
        map[9 * PAGE] = '9';
        _exit(child_sees(again) == 0 ? 0 : 2);
    }
    check(wait_for(child) == 0 && map[9 * PAGE] == '9' && map[3 * PAGE] == 'd', "a child maps something else there");
    need(mprotect(map + 4 * PAGE, PAGE, PROT_READ) == 0 && mprotect(map + 4 * PAGE, PAGE, both) == 0, "mprotect");
    char *moved = mremap(map + 4 * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    check(moved != MAP_FAILED && child_sees(moved) == SIGSEGV, "the wish moves with the range");
    char *second = mremap(moved, 0, 4 * PAGE, MREMAP_MAYMOVE);
    check(second != MAP_FAILED && second[0] == 'E' && child_sees(second) == SIGSEGV, "a second mapping of it has it too");
    need(madvise(map, 16 * PAGE, MADV_DOFORK) == 0, "madvise");
    check(child_sees(map + 5 * PAGE) == 0, "MADV_DOFORK gives it to children again");
    need(madvise(map, PAGE, MADV_DONTFORK) == 0 && munmap(map, PAGE) == 0, "madvise");
    need(mmap(map, PAGE, both, MAP_SHARED | MAP_FIXED, fd, 0) == map, "mmap");
    check(child_sees(map) == 0, "a new mapping there is not kept");
    check(madvise(map, 16 * PAGE, MADV_DONTFORK) == 0 && child_sees(map + 15 * PAGE) == SIGSEGV && map[15 * PAGE] == 'P',
          "all of it is kept");
    return unlink(path) != 0;
}
