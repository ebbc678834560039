/*
 * The two hot paths, for counting instructions under callgrind, which collects inside hot() alone:
 *
 *     hot mmap COUNT          pairs mmap + munmap of an anonymous page: not netmem's
 *     hot read COUNT FILE     one pread of a byte in each of so many pages that are not here yet
 *
 * A pread fetches and installs a page in the calling thread, as a fault does, on every rung. A load can't be counted:
 * callgrind (3.19) ends with an assertion of its own at the library's signal handler, and userfaultfd is not there under it.
 * The figure is what a larger COUNT adds: what the first call does once is not in it.
 */
#include "floor.h"

static __attribute__((noinline)) void hot(int fd, uint64_t count)
{
    char byte;
    for (uint64_t i = 0; i < count; i++) {
        if (fd >= 0) {
            if (pread(fd, &byte, 1, (off_t)(i * PAGE_BYTES)) != 1)
                die("pread");
            continue;
        }
        void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED || munmap(page, PAGE_BYTES) != 0)
            die("mmap");
    }
}

int main(int argc, char **argv)
{
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    int reads = argc > 1 && strcmp(argv[1], "read") == 0, fd = -1;
    if (count == 0 || argc != 3 + reads)
        return 2;
    if (reads && (fd = open(argv[3], O_RDONLY)) < 0)
        die(argv[3]);
    hot(fd, count);
    return 0;
}
