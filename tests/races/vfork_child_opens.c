/*
 * What a vfork child does with its descriptors is not done to its parent's: the numbers are the same, the tables are
 * two. FILE is one that this host has no page of.
 *
 *     vfork_child_opens FILE
 */
#include "race.h"

int main(int argc, char **argv)
{
    must(argc == 2);
    int fd = open(argv[1], O_RDONLY);
    must(fd >= 0 && dup(fd) >= 0);
    pid_t child = vfork();
    if (child == 0) {
        close(fd);
        _exit(open("/dev/null", O_RDONLY) != fd);
    }
    int status = 1;
    must(waitpid(child, &status, 0) == child);
    char text[5] = "";
    ssize_t count = pread(fd, text, 4, 0);
    printf("child %d, then %zd bytes: %s\n", status, count, text);
    return 0;
}
