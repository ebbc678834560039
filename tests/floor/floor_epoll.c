/*
 * The smallest page server for many connections: what floor_server does, with one thread and epoll.
 *
 *     floor_epoll [--mib 256] [--port N] [--any] [--cpu N]
 *
 * Prints port=N when it is ready. Answers of one page only; an answer that does not fit into a socket's buffer ends its
 * connection: a client with one request under way never meets that.
 */
#include "floor.h"
#include <sys/epoll.h>

enum { EVENTS = 256 };

static char *buffer;
static uint64_t pages;

/* 0 when the connection goes on. */
static int serve(int fd)
{
    struct request request;
    ssize_t n = recv(fd, &request, sizeof request, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (n != sizeof request || request.count != 1 || request.page >= pages)
        return -1;
    return send(fd, buffer + request.page * PAGE_BYTES, PAGE_BYTES, MSG_NOSIGNAL | MSG_DONTWAIT) == PAGE_BYTES ? 0 : -1;
}

int main(int argc, char **argv)
{
    pages = number(argc, argv, "--mib", 256) << 8;
    pin(argc, argv);
    buffer = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED)
        die("mmap");
    for (uint64_t i = 0; i < pages; i++)
        fill_page(buffer + i * PAGE_BYTES, i);
    int listener = listen_and_say(argc, argv), poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS];
    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event) != 0)
        die("epoll");
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                fd = accept(listener, NULL, NULL);
                event = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
                if (fd < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) != 0)
                    die("accept");
                no_delay(fd);
            } else if (serve(fd) != 0) {
                close(fd);
            }
        }
    }
}
