/*
 * The floor of a page fault: userfaultfd, one handler thread, one blocking request a fault, UFFDIO_COPY.
 *
 *     floor_uffd --port N [--host A] [--pages 16384] [--cpu N] [--handler-cpu N] [--no-net]
 *                [--csv FILE] [--over N]
 *
 * Touches every page of a memfd mapping once, in a random order; with --over N, --pages of the N pages of a larger one,
 * and the server is asked for those that it has. --handler-cpu puts the handler thread on
 * another CPU than the thread that faults. --no-net installs a constant page and asks no server.
 */
#include "floor.h"
#include <pthread.h>

static char *base;
static int uffd, server = -1;
static uint64_t faults, pages;
static int handler_cpu = -1;

static void *handle(void *argument)
{
    static char page[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
    (void)argument;
    if (handler_cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(handler_cpu, &set);
        if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) != 0)
            die("pthread_setaffinity_np");
    }
    for (;;) {
        struct uffd_msg message;
        if (read(uffd, &message, sizeof message) != sizeof message)
            die("read of the userfaultfd");
        if (message.event != UFFD_EVENT_PAGEFAULT)
            continue;
        char *at = (char *)(uintptr_t)(message.arg.pagefault.address & ~(uint64_t)(PAGE_BYTES - 1));
        struct request request = {(uint64_t)(at - base) / PAGE_BYTES % pages, 1, 0};
        if (server >= 0) {
            send_all(server, &request, sizeof request);
            if (recv_all(server, page, sizeof page) != 0)
                die("the server closed");
        } else {
            uint64_t word = stamp(request.page);
            memcpy(page, &word, sizeof word);
        }
        faults++;
        install(uffd, at, page, sizeof page);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    size_t wrong = 0;
    int net = !flag(argc, argv, "--no-net");
    handler_cpu = (int)number(argc, argv, "--handler-cpu", UINT64_MAX);
    pages = number(argc, argv, "--pages", 16384);
    uint64_t over = number(argc, argv, "--over", pages);
    pin(argc, argv);
    if (pages == 0 || over < pages)
        return 2;
    uint64_t *order = permutation(over), *ns = malloc(pages * sizeof *ns);
    server = net ? dial(argc, argv) : -1;
    base = map_missing(over * PAGE_BYTES, &uffd);
    pthread_t handler;
    if (ns == NULL || pthread_create(&handler, NULL, handle, NULL) != 0)
        die("pthread_create");
    uint64_t began = now_ns();
    for (size_t i = 0; i < pages; i++) {
        volatile uint64_t *at = (volatile uint64_t *)(void *)(base + order[i] * PAGE_BYTES);
        uint64_t begin = now_ns(), value = *at;
        ns[i] = now_ns() - begin;
        wrong += value != stamp(order[i] % pages);
    }
    uint64_t took = now_ns() - began;
    printf("pages=%ju\nfaults=%ju\nwrong=%zu\nnet=%d\nhandler_cpu=%d\n", (uintmax_t)pages, (uintmax_t)faults, wrong,
           net, handler_cpu);
    printf("touches_per_s=%.0f\n", (double)pages * 1e9 / (double)took);
    write_csv(argc, argv, ns, pages);
    print_latency("fault", ns, pages);
    return wrong != 0;
}
