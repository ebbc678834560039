/*
 * The floor of a sequential scan: chunks of 256 KiB, four requested ahead, installed with UFFDIO_COPY into a
 * memfd mapping, every page touched; all in one thread.
 *
 *     floor_seq --port N [--host A] [--mib 256 | --pages N] [--stride 1] [--in-flight 4] [--cpu N] [--receive-only]
 *
 * --receive-only stops short of installing: the stream by itself. --stride N takes each Nth page, 64 requests of one page
 * in the place of one of 64, and installs one by one.
 */
#include "floor.h"

enum { CHUNK_PAGES = 64, CHUNK_BYTES = CHUNK_PAGES * PAGE_BYTES };

static uint64_t stride;

static void ask(int fd, uint64_t chunk)
{
    struct request requests[CHUNK_PAGES] = {{chunk * CHUNK_PAGES, CHUNK_PAGES, 0}};
    for (uint64_t i = 0; stride > 1 && i < CHUNK_PAGES; i++)
        requests[i] = (struct request){(chunk * CHUNK_PAGES + i) * stride, 1, 0};
    send_all(fd, requests, (stride > 1 ? CHUNK_PAGES : 1) * sizeof *requests);
}

int main(int argc, char **argv)
{
    static char buffer[CHUNK_BYTES] __attribute__((aligned(PAGE_BYTES)));
    uint64_t pages = number(argc, argv, "--pages", number(argc, argv, "--mib", 256) << 8), chunks = pages / CHUNK_PAGES;
    uint64_t bytes = chunks * CHUNK_BYTES, wrong = 0;
    uint64_t ahead = number(argc, argv, "--in-flight", 4);
    int uffd, touching = !flag(argc, argv, "--receive-only");
    stride = number(argc, argv, "--stride", 1);
    pin(argc, argv);
    if (bytes == 0 || stride == 0)
        return 2;
    int fd = dial(argc, argv);
    char *base = map_missing(bytes * stride, &uffd);
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
        char *at = base + chunk * CHUNK_BYTES * stride;
        if (stride == 1)
            install(uffd, at, buffer, sizeof buffer);
        for (uint64_t i = 0; i < CHUNK_PAGES; i++) {
            if (stride > 1)
                install(uffd, at + i * stride * PAGE_BYTES, buffer + i * PAGE_BYTES, PAGE_BYTES);
            uint64_t value = *(volatile uint64_t *)(void *)(at + i * stride * PAGE_BYTES);
            wrong += value != stamp((chunk * CHUNK_PAGES + i) * stride);
        }
    }
    uint64_t ns = now_ns() - begin;
    printf("bytes=%ju\nin_flight=%ju\nwrong=%ju\ninstalled=%d\nns=%ju\n", (uintmax_t)bytes, (uintmax_t)ahead,
           (uintmax_t)wrong, touching, (uintmax_t)ns);
    printf("seq_mb_per_s=%.0f\n", (double)bytes * 1e3 / (double)ns);
    return wrong != 0;
}
