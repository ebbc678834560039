/*
 * The floor of a commit: each dirty page is copied once and sent; the receiver keeps all of them in memory it
 * has used before, and answers once.
 *
 *     floor_commit [--mib 256] [--rounds 10] [--batch 64] [--cpu N] [--receiver-cpu N] [--direct] [--discard]
 *
 * Makes the receiver itself, as a child over loopback TCP; --receiver-cpu pins it (else as --cpu). --direct
 * sends from the pages themselves, without the copy. --discard: the receiver throws them away. --every N
 * commits each Nth page of the buffer, as many as --mib says.
 */
#include "floor.h"
#include <sys/wait.h>

static void receive(int listener, uint64_t bytes, uint64_t rounds, size_t batch, int discard)
{
    int fd = accept(listener, NULL, NULL);
    char *kept = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (fd < 0 || kept == MAP_FAILED)
        die("receiver");
    no_delay(fd);
    for (uint64_t round = 0; round < rounds; round++) {
        for (uint64_t at = 0; at < bytes;) {
            size_t length = bytes - at < batch ? bytes - at : batch;
            if (recv_all(fd, kept + (discard ? 0 : at), length) != 0)
                die("the sender closed");
            at += length;
        }
        send_all(fd, &round, sizeof round);
    }
    exit(0);
}

int main(int argc, char **argv)
{
    uint64_t bytes = number(argc, argv, "--mib", 256) << 20, rounds = number(argc, argv, "--rounds", 10);
    uint64_t every = number(argc, argv, "--every", 1), pages = bytes / PAGE_BYTES;
    size_t batch = number(argc, argv, "--batch", 64) * PAGE_BYTES;
    int direct = flag(argc, argv, "--direct"), discard = flag(argc, argv, "--discard"), status = 0;
    pin(argc, argv);
    if (bytes == 0 || rounds == 0 || batch == 0 || every == 0)
        return 2;
    int listener = listen_and_say(argc, argv);
    pid_t child = fork();
    if (child == 0) {
        char *cpu[] = {argv[0], (char *)"--cpu", (char *)option(argc, argv, "--receiver-cpu", NULL), NULL};
        if (cpu[2] != NULL && freopen("/dev/null", "w", stdout) != NULL)
            pin(3, cpu);
        receive(listener, bytes, rounds + 1, batch, discard);
    }
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (getsockname(listener, (struct sockaddr *)&address, &length) != 0
        || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("connect");
    no_delay(fd);

    char *memory = mmap(NULL, bytes * every, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *capture = malloc(batch);
    uint64_t *ns = malloc(rounds * sizeof *ns), answer;
    if (memory == MAP_FAILED || capture == NULL || ns == NULL)
        die("memory");
    for (uint64_t i = 0; i < pages; i++)
        fill_page(memory + i * every * PAGE_BYTES, i);
    for (uint64_t round = 0; round <= rounds; round++) { /* the first warms up */
        uint64_t begin = now_ns();
        for (uint64_t page = 0; page < pages;) {
            size_t filled = 0;
            const char *from = memory + page * every * PAGE_BYTES;
            for (; filled < batch && page < pages; page++, filled += PAGE_BYTES)
                if (!direct || every != 1)
                    memcpy(capture + filled, memory + page * every * PAGE_BYTES, PAGE_BYTES);
            send_all(fd, direct && every == 1 ? from : capture, filled);
        }
        if (recv_all(fd, &answer, sizeof answer) != 0 || answer != round)
            die("no acknowledgement");
        if (round > 0)
            ns[round - 1] = now_ns() - begin;
    }
    printf("bytes=%ju\npages=%ju\nrounds=%ju\ncopied=%d\nkept=%d\n", (uintmax_t)bytes, (uintmax_t)pages,
           (uintmax_t)rounds, !direct || every != 1, !discard);
    print_latency("commit", ns, rounds);
    printf("commit_mb_per_s=%.0f\n", (double)bytes * 1e3 / (double)ns[rounds / 2]);
    return waitpid(child, &status, 0) != child || status != 0;
}
