/* SIGBUS and SIGSEGV in a file's mappings come to the program's own handler, with the kernel's code and the right address. */
#include "program.h"

static void say(const char *what, const char *gives)
{
    dprintf(STDOUT_FILENO, "ok: %s: %s\n", what, gives);
}

static void both(const char *what, char *at)
{
    char line[100];
    snprintf(line, sizeof line, "%s, a load", what);
    say(line, touched(at, 0));
    snprintf(line, sizeof line, "%s, a store", what);
    say(line, touched(at, 1));
}

static void run(int fd, int flags)
{
    int rw = PROT_READ | PROT_WRITE;
    char *map = map_or_fail(fd, 12 * PAGE, rw, flags);
    both("a page that is there", map + PAGE + 77);
    both("behind the end of the file", map + 8 * PAGE + 3);
    both("far behind it", map + 12 * PAGE - 1);
    need(mprotect(map + 2 * PAGE, PAGE, PROT_READ) == 0 && mprotect(map + 3 * PAGE, PAGE, PROT_NONE) == 0, "mprotect");
    both("PROT_READ", map + 2 * PAGE + 9);
    both("PROT_NONE", map + 3 * PAGE + 9);
    need(mprotect(map + 9 * PAGE, PAGE, PROT_READ) == 0 && mprotect(map + 10 * PAGE, PAGE, PROT_NONE) == 0, "mprotect");
    both("PROT_READ, behind the end", map + 9 * PAGE + 9);
    both("PROT_NONE, behind the end", map + 10 * PAGE + 9);
    need(munmap(map + 4 * PAGE, PAGE) == 0, "munmap");
    both("unmapped", map + 4 * PAGE + 1);
    both("beside it", map + 5 * PAGE + 8);
    need(mprotect(map + 2 * PAGE, 2 * PAGE, rw) == 0, "mprotect");
    both("opened again", map + 3 * PAGE + 10);
    need(munmap(map, 12 * PAGE) == 0, "munmap");
    both("all unmapped", map + 100);
    map = map_or_fail(fd, 2 * PAGE, PROT_READ, flags);
    both("mapped to be read", map + PAGE + 5);
    check(map[0] == 'A' && map[PAGE] == 'B', "it shows the file");
    munmap(map, 2 * PAGE);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "faults_have_their_codes");
    if (command.write)
        close(make_pages(path, 8));
    if (!command.check)
        return 0;
    int fd = open_or_fail(path, O_RDWR);
    run(fd, MAP_PRIVATE);
    run(fd, MAP_SHARED);
    int reader = open_or_fail(path, O_RDONLY);
    char *map = map_or_fail(reader, 2 * PAGE, PROT_READ, MAP_SHARED);
    both("of a read-only descriptor", map + 50);
    return unlink(path) != 0;
}
