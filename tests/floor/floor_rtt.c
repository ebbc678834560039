/*
 * The floor of a page fault's network part: a 16-byte request and a 4 KiB answer, blocking sockets.
 *
 *     floor_rtt --port N [--host A] [--count 20000] [--pages 65536] [--cpu N] [--csv FILE]
 *
 * --pages is how many the server holds; --csv writes every round trip in nanoseconds, one a line.
 */
#include "floor.h"

int main(int argc, char **argv)
{
    size_t count = number(argc, argv, "--count", 20000), warm = count / 10;
    uint64_t pages = number(argc, argv, "--pages", 65536), state = 1, wrong = 0;
    uint64_t *ns = malloc((count + 1) * sizeof *ns), page[PAGE_BYTES / 8];
    pin(argc, argv);
    if (count == 0 || pages == 0 || ns == NULL)
        return 2;
    int fd = dial(argc, argv);
    for (size_t i = 0; i < warm + count; i++) {
        struct request request = {next_random(&state) % pages, 1, 0};
        uint64_t begin = now_ns();
        send_all(fd, &request, sizeof request);
        if (recv_all(fd, page, sizeof page) != 0)
            die("the server closed");
        if (i >= warm)
            ns[i - warm] = now_ns() - begin;
        wrong += page[0] != stamp(request.page);
    }
    write_csv(argc, argv, ns, count);
    printf("count=%zu\nwrong=%ju\n", count, (uintmax_t)wrong);
    print_latency("rtt", ns, count);
    return wrong != 0;
}
