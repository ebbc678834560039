/*
 * Waits for pages in three ways, each on a line of its own, and for a sync.
 *
 *     waits FILE PAGES            touches a third of the pages, copies a third by memcpy, reads a third by pread; stores and syncs
 *     waits FILE PAGES fill
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096

static long touch(const volatile unsigned char *map, long pages)
{
    long sum = 0;
    for (long i = 0; i < pages; i++)
        sum += map[i * 37 % pages * PAGE]; /* waits: touch */
    return sum;
}

static long copy(const unsigned char *map, long pages, size_t length)
{
    static unsigned char into[PAGE];
    long sum = 0;
    for (long i = 0; i < pages; i++) {
        memcpy(into, map + i * 41 % pages * PAGE, length); /* waits: copy */
        sum += into[0];
    }
    return sum;
}

static long read_by_call(int fd, long first, long pages)
{
    unsigned char byte[PAGE];
    long sum = 0;
    for (long i = 0; i < pages; i++) {
        if (pread(fd, byte, PAGE, (first + i) * PAGE) != PAGE) /* waits: read */
            exit(1);
        sum += byte[0];
    }
    return sum;
}

int main(int argc, char **argv)
{
    long pages = argc > 2 ? atol(argv[2]) : 0, third = pages / 3;
    int fd = argc > 2 ? open(argv[1], O_RDWR | O_CREAT, 0644) : -1;
    if (fd < 0 || third == 0 || ftruncate(fd, pages * PAGE) != 0)
        return 2;
    unsigned char *map = mmap(NULL, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return 2;
    if (argc > 3) {
        memset(map, 1, (size_t)pages * PAGE);
        return msync(map, (size_t)pages * PAGE, MS_SYNC) != 0;
    }
    if (madvise(map, (size_t)pages * PAGE, MADV_RANDOM) != 0)
        return 2;
    long sum = touch(map, third) + copy(map + third * PAGE, third, (size_t)PAGE - (size_t)argc + 3) + read_by_call(fd, 2 * third, third);
    map[1] = 2;
    if (msync(map, PAGE, MS_SYNC) != 0) /* waits: sync */
        return 1;
    printf("%ld\n", sum);
    return 0;
}
