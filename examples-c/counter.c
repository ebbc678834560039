/*
 * counter: a number that survives. Each run adds one and returns only when that is kept.
 *
 *     ./counter /tmp/counter              on a local file
 *     netmem run -- ./counter             on /netmem/counter
 *
 * The first run prints "counter: 1", the next "counter: 2", and so on; under netmem also when the runs are
 * on different hosts, and after the server was restarted on a durable store. Two runs at once are fine: each
 * holds the file's lock while it counts.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096 };

static void die(const char *what)
{
    perror(what);
    exit(1);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/netmem/counter";
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0)
        die(path);
    if (lockf(fd, F_LOCK, 0) != 0)
        die("lockf");
    if (ftruncate(fd, PAGE_BYTES) != 0)
        die("ftruncate");
    uint64_t *counter = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (counter == MAP_FAILED)
        die("mmap");

    *counter += 1;
    if (msync(counter, PAGE_BYTES, MS_SYNC) != 0)
        die("msync"); /* not kept: say no number */
    printf("counter: %ju\n", (uintmax_t)*counter);

    munmap(counter, PAGE_BYTES);
    if (close(fd) != 0)
        die("close");
    return 0;
}
