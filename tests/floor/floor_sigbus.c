/*
 * The floor of a fault that is served by the thread that took it: UFFD_FEATURE_SIGBUS, one blocking request in the signal
 * handler, UFFDIO_COPY. Each thread has a connection of its own.
 *
 *     floor_sigbus --port N [--host A] [--threads 1] [--pages 16384] [--cpu N] [--csv FILE]
 *
 * The threads share the pages of a random order, each touched once.
 */
#include "touch.h"
#include <signal.h>

static char *base;
static int uffd, count;
static char **words;
static __thread int server;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    static __thread char page[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
    char *at = (char *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE_BYTES - 1));
    struct request request = {(uint64_t)(at - base) / PAGE_BYTES, 1, 0};
    (void)signal, (void)context;
    send_all(server, &request, sizeof request);
    if (recv_all(server, page, sizeof page) != 0)
        die("the server closed");
    install(uffd, at, page, sizeof page);
}

static void connect_thread(void)
{
    server = dial(count, words);
}

int main(int argc, char **argv)
{
    size_t pages = number(argc, argv, "--pages", 16384);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    count = argc;
    words = argv;
    pin(argc, argv);
    if (pages == 0)
        return 2;
    base = map_missing_with(pages * PAGE_BYTES, &uffd, UFFD_FEATURE_SIGBUS);
    struct touching all = {.base = base, .order = permutation(pages), .count = pages, .begin = connect_thread,
                           .threads = number(argc, argv, "--threads", 1), .ns = malloc(pages * sizeof *all.ns)};
    if (all.ns == NULL || sigaction(SIGBUS, &action, NULL) != 0)
        die("sigaction");
    uint64_t wrong = touch_all(&all);
    printf("wrong=%ju\n", (uintmax_t)wrong);
    write_csv(argc, argv, all.ns, pages);
    print_latency("fault", all.ns, pages);
    return wrong != 0;
}
