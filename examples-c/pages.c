/*
 * pages: touches the pages of a file in some order, to show what faults and fetches that makes.
 *
 *     ./pages /tmp/pages 1024 seq         makes the file, 1,024 numbered pages, if it is not there yet
 *     ./pages /tmp/pages 1024 random      touches every page, in a random order that is the same each time
 *     ./pages /tmp/pages 1024 stride      touches every 16th page
 *
 *     netmem run -- ./pages /netmem/pages 1024 seq
 *     netmem run -- env NETMEM_STATS=- ./pages /netmem/pages 1024 random
 *
 * FILE is /netmem/pages, the count 1024 and the order seq if not given. Each run prints one line, the same
 * on a local file and under netmem:
 *
 *     pages: 1024 touched of 1024, seq, 0 wrong
 *     pages: 64 touched of 1024, stride, 0 wrong
 *
 * Under netmem, NETMEM_STATS=- adds the library's counters at exit: seq takes few faults for its pages,
 * since those ahead are fetched meanwhile; random and stride take about one for each page they touch; and a
 * run whose pages this host still holds takes none.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096, STRIDE = 16 };

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t stamp(size_t page)
{
    return (page + 1) * 0x9e3779b97f4a7c15u;
}

/* The `step`th page of a permutation: multiplication by an odd number modulo a power of two. */
static size_t shuffled(size_t step, size_t pages)
{
    size_t mask = 1;
    while (mask < pages)
        mask *= 2;
    return (step * 0x2545f4914f6cdd1du + 7) & (mask - 1);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/netmem/pages";
    size_t pages = argc > 2 ? strtoul(argv[2], NULL, 10) : 1024;
    const char *order = argc > 3 ? argv[3] : "seq";
    int random = strcmp(order, "random") == 0, stride = strcmp(order, "stride") == 0;
    if (pages == 0 || pages > SIZE_MAX / 2 / PAGE_BYTES
        || (!random && !stride && strcmp(order, "seq") != 0)) {
        fprintf(stderr, "usage: pages [FILE [COUNT [seq|random|stride]]]\n");
        return 2;
    }

    struct stat status;
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || fstat(fd, &status) != 0)
        die(path);
    size_t there = (size_t)status.st_size / PAGE_BYTES;
    if (there < pages && ftruncate(fd, (off_t)(pages * PAGE_BYTES)) != 0)
        die("ftruncate");
    char *base = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        die("mmap");
    for (size_t page = there; page < pages; page++)
        *(uint64_t *)(void *)(base + page * PAGE_BYTES) = stamp(page);
    if (there < pages && msync(base, pages * PAGE_BYTES, MS_SYNC) != 0)
        die("msync");

    size_t touched = 0, wrong = 0;
    for (size_t step = 0; touched < (stride ? (pages + STRIDE - 1) / STRIDE : pages); step++) {
        size_t page = random ? shuffled(step, pages) : stride ? step * STRIDE : step;
        if (page >= pages)
            continue;
        wrong += *(volatile uint64_t *)(void *)(base + page * PAGE_BYTES) != stamp(page);
        touched++;
    }
    printf("pages: %zu touched of %zu, %s, %zu wrong\n", touched, pages, order, wrong);

    munmap(base, pages * PAGE_BYTES);
    if (close(fd) != 0)
        die("close");
    return wrong != 0;
}
