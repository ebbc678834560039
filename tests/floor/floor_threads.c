/*
 * The floor of faults by several threads: one handler thread and one connection. The handler waits for faults and for
 * answers at once; it sends a request for each fault that it reads, all in one call, and installs each page as it comes,
 * so that as many requests are under way as threads wait.
 *
 *     floor_threads --port N [--host A] [--threads 4] [--pages 16384] [--cpu N]
 *
 * The threads share the pages of a random order, each touched once. Everything is on one CPU with --cpu.
 */
#include "touch.h"
#include <poll.h>

static char *base;
static int uffd, server;

/* Reads the faults there are, at most `most`, and asks for their pages; returns how many. */
static size_t ask(uint64_t *wanted, size_t most)
{
    struct uffd_msg messages[THREADS_MAX];
    struct request requests[THREADS_MAX];
    ssize_t n = read(uffd, messages, most * sizeof *messages);
    if (n < 0 && errno != EAGAIN)
        die("read of the userfaultfd");
    size_t count = n > 0 ? (size_t)n / sizeof *messages : 0;
    for (size_t i = 0; i < count; i++) {
        wanted[i] = (messages[i].arg.pagefault.address - (uintptr_t)base) / PAGE_BYTES;
        requests[i] = (struct request){wanted[i], 1, 0};
    }
    if (count > 0)
        send_all(server, requests, count * sizeof *requests);
    return count;
}

static void *handle(void *argument)
{
    static char pages[THREADS_MAX * PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
    uint64_t wanted[THREADS_MAX]; /* asked for, oldest first; the server answers in order */
    size_t under_way = 0, got = 0;
    struct pollfd on[] = {{.fd = uffd, .events = POLLIN}, {.fd = server, .events = POLLIN}};
    (void)argument;
    for (;;) {
        if (poll(on, 2, -1) < 0)
            die("poll");
        if (on[0].revents != 0 && under_way < THREADS_MAX)
            under_way += ask(wanted + under_way, THREADS_MAX - under_way);
        if (on[1].revents == 0)
            continue;
        ssize_t n = recv(server, pages + got, under_way * PAGE_BYTES - got, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            die("recv");
        got += n > 0 ? (size_t)n : 0;
        size_t whole = got / PAGE_BYTES;
        for (size_t i = 0; i < whole; i++)
            install(uffd, base + wanted[i] * PAGE_BYTES, pages + i * PAGE_BYTES, PAGE_BYTES);
        if (whole > 0) {
            under_way -= whole;
            got -= whole * PAGE_BYTES;
            memmove(wanted, wanted + whole, under_way * sizeof *wanted);
            memmove(pages, pages + whole * PAGE_BYTES, got);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    size_t pages = number(argc, argv, "--pages", 16384);
    pin(argc, argv);
    if (pages == 0)
        return 2;
    server = dial(argc, argv);
    base = map_missing(pages * PAGE_BYTES, &uffd);
    if (fcntl(uffd, F_SETFL, O_NONBLOCK) != 0)
        die("fcntl");
    pthread_t handler;
    struct touching all = {.base = base, .order = permutation(pages), .count = pages,
                           .threads = number(argc, argv, "--threads", 4), .ns = malloc(pages * sizeof *all.ns)};
    if (all.ns == NULL || pthread_create(&handler, NULL, handle, NULL) != 0)
        die("pthread_create");
    uint64_t wrong = touch_all(&all);
    printf("wrong=%ju\n", (uintmax_t)wrong);
    print_latency("touch", all.ns, pages);
    return wrong != 0;
}
