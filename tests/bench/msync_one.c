/*
 * One changed page in a big mapping: how long msync(MS_SYNC) of the whole takes. Plain POSIX.
 *
 *     msync_one FILE MIB [--repeat 200] [--cpu N]
 *
 * All pages are brought in first; each round changes a word of one page, in a random order.
 */
#include "floor.h"

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    uint64_t bytes = strtoull(argv[2], NULL, 10) << 20, pages = bytes / PAGE_BYTES, sum = 0;
    uint64_t repeat = number(argc, argv, "--repeat", 200), *ns = malloc((repeat + 1) * sizeof *ns);
    pin(argc, argv);
    int fd = open(argv[1], O_RDWR);
    if (fd < 0 || pages == 0 || repeat == 0 || repeat > pages || ns == NULL)
        die(argv[1]);
    char *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        die("mmap");
    for (uint64_t i = 0; i < pages; i++)
        sum += *(volatile uint64_t *)(void *)(base + i * PAGE_BYTES);
    uint64_t *order = permutation(pages);
    for (uint64_t round = 0; round < repeat; round++) {
        ((volatile uint64_t *)(void *)(base + order[round] * PAGE_BYTES))[1] = sum + now_ns();
        uint64_t begin = now_ns();
        if (msync(base, bytes, MS_SYNC) != 0)
            die("msync");
        ns[round] = now_ns() - begin;
    }
    print_latency("msync", ns, repeat);
    return 0;
}
