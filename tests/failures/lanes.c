/*
 * One of several writers of a file, each with a lane of its own in every page, while wires are cut and processes killed.
 *
 *     lanes FILE WRITER PAGES    stores 1, 2, 3, … into its lane of every page and commits each number
 *
 * It writes a line for each thing: "s N" found at the start, "a N" about to be committed, "e ERRNO" not committed, "d N" committed,
 * "m" a move of the view that broke half-way, which the next one must mend, "x …" something that must not be. A commit is all or
 * nothing, so that in what anybody sees a lane holds the same number in every page; numbers do not go back; and a byte that only
 * this process stores into holds what it stored last.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, LANE = 64, LANES = 16 };

extern int netmem_refresh(int fd, uint64_t *epoch) __attribute__((weak));

static char *at;
static long pages;
static int writer;

static volatile uint64_t *lane(long page, int of)
{
    return (volatile uint64_t *)(at + page * PAGE + of * LANE);
}

static void *flip(void *none)
{
    volatile char *mine = at + (writer + 1) % pages * PAGE + writer * LANE + 8;
    for (char value = *mine;; value = !value) {
        *mine = value;
        for (int look = 0; look < 50; look++) {
            if (*mine != value) {
                printf("x a store of %d is %d\n", value, *mine);
                exit(1);
            }
        }
    }
    return none;
}

/* A sync is done when the commit is there; a wire that breaks after that can leave pages of two epochs here, until the next move. */
static int mixed(void)
{
    for (int of = 0; of < LANES; of++)
        for (long at = 1; at < pages; at++)
            if (*lane(at, of) != *lane(0, of))
                return 1;
    return 0;
}

static void look(int fd)
{
    if (mixed()) {
        printf("m\n");
        while (netmem_refresh(fd, NULL) != 0)
            printf("e %d\n", errno);
    }
    static uint64_t seen[LANES];
    char page[PAGE];
    for (int of = 0; of < LANES; of++) {
        uint64_t number = *lane(0, of), read = 0;
        long some = (long)(number * 7919 + of) % pages;
        for (long at = 0; at < pages; at++)
            if (*lane(at, of) != number)
                printf("x lane %d is %lu in page 0 and %lu in page %ld\n", of, number, *lane(at, of), at);
        if (number < seen[of])
            printf("x lane %d went from %lu to %lu\n", of, seen[of], number);
        seen[of] = number;
        if (pread(fd, page, PAGE, some * PAGE) != PAGE || memcpy(&read, page + of * LANE, 8) == NULL || read != number)
            printf("x lane %d of page %ld is read as %lu, not %lu\n", of, some, read, number);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int fd = open(argv[1], O_RDWR), flipping = 0;
    pthread_t thread;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    writer = atoi(argv[2]);
    pages = atol(argv[3]);
    at = fd < 0 ? MAP_FAILED : mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        printf("e %d\n", errno);
        return 1;
    }
    look(fd);
    uint64_t number = *lane(0, writer);
    printf("s %lu\n", number);
    while (number++, 1) {
        for (long page = 0; page < pages; page++)
            *lane(page, writer) = number;
        printf("a %lu\n", number);
        while (msync(at, pages * PAGE, MS_SYNC) != 0)
            printf("e %d\n", errno);
        printf("d %lu\n", number);
        look(fd);
        /* Not before: what a killed predecessor had on its way may arrive until its successor has committed. */
        if (!flipping && pthread_create(&thread, NULL, flip, NULL) != 0)
            return 1;
        flipping = 1;
    }
}
