/*
 * touch FILE PAGES ORDER [ADVICE]: touches pages of a mapped file in an order: seq, reversed, strided (by 7), two (scans at once, one from
 * each end), random. ADVICE is random or sequential. Says how many were touched, and how many did not hold their own number.
 *
 * touch FILE PAGES fill: makes the file.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096 };

static uint64_t pages, touched, wrong;
static char *base;

static void touch(uint64_t page)
{
    uint64_t word;
    memcpy(&word, base + page * PAGE, sizeof word);
    touched++;
    wrong += word != page + 1;
}

static void walk(const char *order)
{
    uint64_t seed = 1;
    if (strcmp(order, "seq") == 0)
        for (uint64_t i = 0; i < pages; i++)
            touch(i);
    else if (strcmp(order, "reversed") == 0)
        for (uint64_t i = pages; i-- > 0;)
            touch(i);
    else if (strcmp(order, "strided") == 0)
        for (uint64_t i = 0; i < pages; i += 7)
            touch(i);
    else if (strcmp(order, "two") == 0)
        for (uint64_t i = 0; i < pages / 2; i++)
            touch(i), touch(pages - 1 - i);
    else
        for (uint64_t i = 0; i < pages / 32; i++) {
            seed = seed * 6364136223846793005u + 1;
            touch((seed >> 33) % pages);
        }
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    pages = strtoull(argv[2], NULL, 10);
    int fill = strcmp(argv[3], "fill") == 0;
    int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    if (fd < 0 || (fill && ftruncate(fd, (off_t)(pages * PAGE)) != 0))
        return 3;
    base = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return 4;
    if (argc > 4)
        madvise(base, pages * PAGE, strcmp(argv[4], "random") == 0 ? MADV_RANDOM : MADV_SEQUENTIAL);
    if (!fill)
        walk(argv[3]);
    for (uint64_t i = 0; fill && i < pages; i++) {
        uint64_t word = i + 1;
        memcpy(base + i * PAGE, &word, sizeof word);
    }
    printf("%ju touched, %ju wrong\n", (uintmax_t)touched, (uintmax_t)wrong);
    return fill && msync(base, pages * PAGE, MS_SYNC) != 0;
}
