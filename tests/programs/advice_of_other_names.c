/* posix_madvise and process_madvise: the same advice by other names. */
#include <sys/pidfd.h>
#include <sys/uio.h>

#include "program.h"

static void say(const char *what, ssize_t gave)
{
    dprintf(STDOUT_FILENO, "ok: %s: %zd %s\n", what, gave, gave < 0 ? strerrorname_np(errno) : "");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "advice_of_other_names");
    const int both = PROT_READ | PROT_WRITE;
    if (command.write)
        close(make_pages(path, 16));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR), self = pidfd_open(getpid(), 0);
    char *map = map_or_fail(fd, 16 * PAGE, both, MAP_SHARED), *own = map_or_fail(fd, 4 * PAGE, both, MAP_PRIVATE);
    for (int advice = 0; advice < 7; advice++)
        dprintf(STDOUT_FILENO, "ok: posix_madvise %d: %s\n", advice,
                strerrorname_np(posix_madvise(map, 16 * PAGE, advice)));
    own[0] = 'p';
    check(posix_madvise(own, PAGE, POSIX_MADV_DONTNEED) == 0 && own[0] == 'p', "POSIX_MADV_DONTNEED drops nothing");
    check(posix_madvise(map + 1, PAGE, POSIX_MADV_WILLNEED) == EINVAL, "it returns its error");
    need(munmap(map + 8 * PAGE, PAGE) == 0, "munmap");
    check(posix_madvise(map, 16 * PAGE, POSIX_MADV_WILLNEED) == ENOMEM, "ENOMEM for a hole");

    struct iovec ranges[3] = {{map, 2 * PAGE}, {map + 4 * PAGE, PAGE}, {own, PAGE}};
    say("process_madvise, WILLNEED", process_madvise(self, ranges, 3, MADV_WILLNEED, 0));
    say("process_madvise, COLD", process_madvise(self, ranges, 3, MADV_COLD, 0));
    say("process_madvise, PAGEOUT", process_madvise(self, ranges, 3, MADV_PAGEOUT, 0));
    say("process_madvise, DONTNEED", process_madvise(self, ranges, 3, MADV_DONTNEED, 0));
    check(own[0] == 'A' && map[0] == 'A' && map[4 * PAGE] == 'E', "the private copy is gone, the file is not");
    say("process_madvise, DONTFORK", process_madvise(self, ranges, 3, MADV_DONTFORK, 0));
    pid_t child = fork();
    if (child == 0)
        _exit(touch(map + 4 * PAGE, 0));
    check(wait_for(child) == SIGSEGV, "it was done");
    ranges[1].iov_base = map + 8 * PAGE;
    say("process_madvise, a hole", process_madvise(self, ranges, 3, MADV_DOFORK, 0));
    ranges[0].iov_base = map + 1;
    say("process_madvise, inside a page", process_madvise(self, ranges, 3, MADV_DOFORK, 0));
    say("process_madvise, a flag", process_madvise(self, ranges, 3, MADV_DOFORK, 1));
    say("process_madvise, no process", process_madvise(-1, ranges, 3, MADV_DOFORK, 0));
    say("process_madvise, unknown", process_madvise(self, ranges + 1, 2, 99, 0));
    return unlink(path) != 0;
}
