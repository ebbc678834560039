/*
 * What read and write by descriptor cost on pages that are here: nanoseconds a call, for sizes from 4 KiB to 1 MiB. Plain POSIX.
 *
 *     descriptor FILE [--mib 64] [--rounds 9] [--cpu N]
 *
 * All of the file is read once first. A round goes once through the file with pread, or pwrite, of a size; the figure is
 * the best round's mean.
 */
#include "floor.h"

static int fd;
static char *buffer;

static uint64_t through(uint64_t bytes, size_t size, int writing)
{
    uint64_t begin = now_ns();
    for (uint64_t at = 0; at + size <= bytes; at += size) {
        ssize_t n = writing ? pwrite(fd, buffer, size, (off_t)at) : pread(fd, buffer, size, (off_t)at);
        if (n != (ssize_t)size)
            die(writing ? "pwrite" : "pread");
    }
    return now_ns() - begin;
}

int main(int argc, char **argv)
{
    static const size_t SIZES[] = {4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20};
    if (argc < 2)
        return 2;
    uint64_t bytes = number(argc, argv, "--mib", 64) << 20, rounds = number(argc, argv, "--rounds", 9);
    pin(argc, argv);
    fd = open(argv[1], O_RDWR);
    buffer = malloc(1 << 20);
    if (fd < 0 || bytes == 0 || rounds == 0 || buffer == NULL)
        die(argv[1]);
    through(bytes, 1 << 20, 0);
    for (int writing = 0; writing < 2; writing++) {
        for (size_t which = 0; which < sizeof SIZES / sizeof *SIZES; which++) {
            uint64_t best = UINT64_MAX;
            for (uint64_t round = 0; round < rounds; round++) {
                uint64_t took = through(bytes, SIZES[which], writing);
                best = took < best ? took : best;
            }
            printf("%s_%zuk_ns=%.0f\n", writing ? "write" : "read", SIZES[which] >> 10,
                   (double)best / (double)(bytes / SIZES[which]));
        }
    }
    return 0;
}
