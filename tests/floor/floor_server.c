/*
 * The smallest page server: for each request {page, count} it answers count pages of a buffer.
 *
 *     floor_server [--mib 256] [--port N] [--any] [--cpu N]
 *
 * Prints port=N when it is ready. One thread a connection, blocking, TCP_NODELAY. A request beyond the
 * buffer, of no page or of more than 64 ends its connection.
 */
#include "floor.h"
#include <pthread.h>

static char *buffer;
static uint64_t pages;

static void *serve(void *argument)
{
    int fd = (int)(intptr_t)argument;
    struct request request;
    no_delay(fd);
    for (;;) {
        for (size_t done = 0; done < sizeof request;) {
            ssize_t n = recv(fd, (char *)&request + done, sizeof request - done, 0);
            if (n <= 0) {
                close(fd);
                return NULL;
            }
            done += (size_t)n;
        }
        if (request.count == 0 || request.count > REQUEST_PAGES_MAX || request.page >= pages
            || request.count > pages - request.page) {
            fprintf(stderr, "floor_server: no such pages\n");
            close(fd);
            return NULL;
        }
        const char *from = buffer + request.page * PAGE_BYTES;
        for (size_t left = (size_t)request.count * PAGE_BYTES; left > 0;) {
            ssize_t n = send(fd, from, left, MSG_NOSIGNAL);
            if (n <= 0) {
                close(fd);
                return NULL;
            }
            from += n;
            left -= (size_t)n;
        }
    }
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
    int listener = listen_and_say(argc, argv);
    for (;;) {
        pthread_t thread;
        int fd = accept(listener, NULL, NULL);
        if (fd < 0 || pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) != 0)
            die("accept");
        pthread_detach(thread);
    }
}
