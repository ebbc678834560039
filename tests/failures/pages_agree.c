/* pages_agree PATH PAGES: all pages of a region hold the number of the last commit. Says "start N" with the number that it finds, then stores
 * the next one into all pages, in an order of its own, syncs, and says the number when that has returned; and so on, until it is killed. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8 };

/* Every word of a page follows from the number of the commit and that of the page. */
static uint64_t word_of(uint64_t number, uint64_t page, uint64_t at) {
    return number == 0 ? 0 : at == 0 ? number : (number * 0x9e3779b97f4a7c15u) ^ (page << 32) ^ at;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    uint64_t pages = strtoull(argv[2], NULL, 10);
    int fd = open(argv[1], O_RDWR | O_CREAT, 0644);
    if (fd < 0)
        fail("open");
    struct stat status;
    if (fstat(fd, &status) != 0)
        fail("fstat");
    if ((uint64_t)status.st_size != pages * PAGE && ftruncate(fd, (off_t)(pages * PAGE)) != 0)
        fail("ftruncate");
    uint64_t *map = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        fail("mmap");
    uint64_t number = map[0];
    for (uint64_t page = 0; page < pages; page++)
        for (uint64_t at = 0; at < WORDS; at++)
            if (map[page * WORDS + at] != word_of(number, page, at)) {
                printf("page %llu does not agree with %llu\n", (unsigned long long)page, (unsigned long long)number);
                return 1;
            }
    printf("start %llu\n", (unsigned long long)number);
    fflush(stdout);
    for (;;) {
        number++;
        for (uint64_t turn = 0; turn < pages; turn++) {
            uint64_t page = (turn * 7 + number) % pages;
            for (uint64_t at = 0; at < WORDS; at++)
                map[page * WORDS + at] = word_of(number, page, at);
        }
        if (msync(map, pages * PAGE, MS_SYNC) != 0)
            fail("msync");
        printf("%llu\n", (unsigned long long)number);
        fflush(stdout);
    }
}
