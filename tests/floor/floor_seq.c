/*
 * The floor of a sequential scan: chunks of 256 KiB, four requested ahead, installed with UFFDIO_COPY into a
 * memfd mapping, every page touched; all in one thread.
 *
 *     floor_seq --port N [--host A] [--mib 256] [--in-flight 4] [--cpu N] [--receive-only]
 *
 * --receive-only stops short of installing: the stream by itself.
 */
#include "floor.h"

enum { CHUNK_PAGES = 64, CHUNK_BYTES = CHUNK_PAGES * PAGE_BYTES };

static void ask(int fd, uint64_t chunk)
{
    struct request request = {chunk * CHUNK_PAGES, CHUNK_PAGES, 0};
    send_all(fd, &request, sizeof request);
}

int main(int argc, char **argv)
{
    static char buffer[CHUNK_BYTES] __attribute__((aligned(PAGE_BYTES)));
    uint64_t bytes = number(argc, argv, "--mib", 256) << 20, chunks = bytes / CHUNK_BYTES, wrong = 0;
    uint64_t ahead = number(argc, argv, "--in-flight", 4);
    int uffd, touching = !flag(argc, argv, "--receive-only");
    pin(argc, argv);
    if (bytes == 0)
        return 2;
    int fd = dial(argc, argv);
    char *base = map_missing(bytes, &uffd);
    uint64_t begin = now_ns();
    for (uint64_t i = 0; i < ahead && i < chunks; i++)
        ask(fd, i);
    for (uint64_t chunk = 0; chunk < chunks; chunk++) {
        if (recv_all(fd, buffer, sizeof buffer) != 0)
            die("the server closed");
        if (chunk + ahead < chunks)
            ask(fd, chunk + ahead);
        if (!touching)
            continue;
        char *at = base + chunk * CHUNK_BYTES;
        install(uffd, at, buffer, sizeof buffer);
        for (uint64_t i = 0; i < CHUNK_PAGES; i++)
            wrong += *(volatile uint64_t *)(void *)(at + i * PAGE_BYTES) != stamp(chunk * CHUNK_PAGES + i);
    }
    uint64_t ns = now_ns() - begin;
    printf("bytes=%ju\nin_flight=%ju\nwrong=%ju\ninstalled=%d\nns=%ju\n", (uintmax_t)bytes, (uintmax_t)ahead,
           (uintmax_t)wrong, touching, (uintmax_t)ns);
    printf("seq_mb_per_s=%.0f\n", (double)bytes * 1e3 / (double)ns);
    return wrong != 0;
}
