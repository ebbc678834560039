/*
 * Many connections that fetch random pages, each with one request under way: what a server can do.
 *
 *     fetch_load --port N [--connections 64] [--pages 65536] [--requests 200000] [--region 0] [--cpu N]
 *
 * --region N speaks netmem's protocol and fetches from the region with that number; 0 speaks that of the floor servers.
 * Prints requests a second and the latency of a request.
 */
#include "floor.h"
#include <sys/epoll.h>
#include <sys/resource.h>

enum { HELLO = 64, HEADER = 32, FRONT = 16, RUN = 16, ANSWER = HEADER + FRONT + RUN + PAGE_BYTES };

struct connection {
    int fd;
    uint64_t page, began, requests;
    size_t got;
    char answer[ANSWER];
};

static uint64_t region, pages, state = 99, wrong;

static void put(char *at, uint64_t value, size_t bytes)
{
    memcpy(at, &value, bytes); /* little-endian, as the machine */
}

static void greet(int fd, uint64_t who)
{
    char hello[HELLO] = "NETMEM\r\n";
    put(hello + 8, 2, 2);
    put(hello + 10, 2, 2);
    put(hello + 24, who + 1, 8);
    put(hello + 40, 1, 8);
    send_all(fd, hello, sizeof hello);
    if (recv_all(fd, hello, sizeof hello) != 0 || hello[12] != 0) {
        fprintf(stderr, "the server does not take the connection\n");
        exit(1);
    }
}

static void ask(struct connection *one)
{
    one->page = next_random(&state) % pages;
    one->got = 0;
    one->requests++;
    one->began = now_ns();
    if (region == 0) {
        struct request request = {one->page, 1, 0};
        send_all(one->fd, &request, sizeof request);
        return;
    }
    char frame[HEADER + FRONT + RUN] = {0};
    put(frame, FRONT + RUN, 4);
    put(frame + 4, 0x40, 2);
    put(frame + 8, one->requests, 8);
    put(frame + 16, region, 8);
    put(frame + HEADER + 8, 1, 4);
    put(frame + HEADER + FRONT, one->page, 8);
    put(frame + HEADER + FRONT + 8, 1, 4);
    send_all(one->fd, frame, sizeof frame);
}

int main(int argc, char **argv)
{
    size_t connections = number(argc, argv, "--connections", 64), requests = number(argc, argv, "--requests", 200000);
    pages = number(argc, argv, "--pages", 65536);
    region = number(argc, argv, "--region", 0);
    size_t expected = region == 0 ? PAGE_BYTES : ANSWER;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    pin(argc, argv);
    struct connection *all = calloc(connections, sizeof *all);
    uint64_t *ns = malloc(requests * sizeof *ns);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    if (all == NULL || ns == NULL || poll < 0 || connections == 0 || requests < 100)
        die("setup");
    for (size_t i = 0; i < connections; i++) {
        all[i].fd = dial(argc, argv);
        if (region != 0)
            greet(all[i].fd, i);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &event) != 0)
            die("epoll_ctl");
    }
    uint64_t begin = now_ns();
    for (size_t i = 0; i < connections; i++)
        ask(&all[i]);
    size_t done = 0;
    while (done < requests) {
        struct epoll_event events[256];
        int ready = epoll_wait(poll, events, 256, 10000);
        if (ready <= 0) {
            fprintf(stderr, "no answer for ten seconds\n");
            return 1;
        }
        for (int i = 0; i < ready && done < requests; i++) {
            struct connection *one = events[i].data.ptr;
            ssize_t n = recv(one->fd, one->answer + one->got, expected - one->got, MSG_DONTWAIT);
            if (n == 0 || (n < 0 && errno != EAGAIN))
                die("recv");
            one->got += n > 0 ? (size_t)n : 0;
            if (one->got < expected)
                continue;
            ns[done++] = now_ns() - one->began;
            uint64_t word;
            memcpy(&word, one->answer + expected - PAGE_BYTES, sizeof word);
            wrong += word != stamp(one->page);
            ask(one);
        }
    }
    uint64_t took = now_ns() - begin;
    printf("connections=%zu\nrequests=%zu\nwrong=%ju\n", connections, requests, (uintmax_t)wrong);
    printf("requests_per_s=%.0f\n", (double)requests * 1e9 / (double)took);
    print_latency("request", ns, requests);
    return wrong != 0;
}
