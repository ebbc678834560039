/* regions_agree PATH...: all pages of several regions hold the number of the last commit. Says "start N" with the number that it finds, then
 * stores the next one into some pages of each, commits them together, and says the number when that has returned; and so on, until it is
 * killed. Once in a while a region is cut and made long again in the same commit. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, PAGES = 6, REGIONS_MAX = 8 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

int main(int argc, char **argv) {
    int (*together)(const int *, size_t, unsigned, uint64_t *) =
        (int (*)(const int *, size_t, unsigned, uint64_t *))dlsym(RTLD_DEFAULT, "netmem_commit_together");
    int fds[REGIONS_MAX], count = argc - 1;
    uint64_t *map[REGIONS_MAX], epochs[REGIONS_MAX], number = 0;
    if (count < 1 || count > REGIONS_MAX || together == NULL)
        return 2;
    for (int region = 0; region < count; region++) {
        fds[region] = open(argv[1 + region], O_RDWR | O_CREAT, 0644);
        if (fds[region] < 0)
            fail("open");
        struct stat status;
        if (fstat(fds[region], &status) != 0)
            fail("fstat");
        if (status.st_size != PAGES * PAGE && ftruncate(fds[region], PAGES * PAGE) != 0)
            fail("ftruncate");
        map[region] = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fds[region], 0);
        if (map[region] == MAP_FAILED)
            fail("mmap");
        if (region == 0)
            number = map[0][0];
        for (int page = 0; page < PAGES; page++)
            if (map[region][page * WORDS + page] != (page == 0 ? number : number * 31 + (uint64_t)page) && number != 0) {
                printf("region %d, page %d does not agree with %llu\n", region, page, (unsigned long long)number);
                return 1;
            }
    }
    printf("start %llu\n", (unsigned long long)number);
    fflush(stdout);
    for (;;) {
        number++;
        for (int turn = 0; turn < count; turn++) {
            int region = (int)((number + (uint64_t)turn) % (uint64_t)count);
            if ((number + (uint64_t)region) % 5 == 0 &&
                (ftruncate(fds[region], PAGE + 8) != 0 || ftruncate(fds[region], PAGES * PAGE) != 0))
                fail("ftruncate");
            for (int page = 0; page < PAGES; page++)
                map[region][page * WORDS + page] = page == 0 ? number : number * 31 + (uint64_t)page;
        }
        if (together(fds, (size_t)count, 0, epochs) != 0)
            fail("netmem_commit_together");
        printf("%llu\n", (unsigned long long)number);
        fflush(stdout);
    }
}
