/*
 * A buffer in a page behind the end of a mapped file is EFAULT, and not a signal.
 *
 *     read_behind_the_end FILE
 */
#include "race.h"

int main(int argc, char **argv)
{
    must(argc == 2);
    int fd = open(argv[1], O_RDWR | O_CREAT, 0600), ends[2];
    must(fd >= 0 && ftruncate(fd, PAGE) == 0 && pipe(ends) == 0 && write(ends[1], "abcdef", 6) == 6);
    char *base = shared(fd, 0, 4 * PAGE);
    ssize_t count = read(ends[0], base + 2 * PAGE, 3);
    printf("behind it: %s\n", count < 0 ? strerrorname_np(errno) : "read");
    count = read(ends[0], base + PAGE - 3, 3);
    printf("before it: %zd bytes\n", count);
    return 0;
}
