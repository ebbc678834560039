/* One thread syncs a mapping without a pause; others receive datagrams, read a pipe and write into its pages meanwhile. Nothing
   is lost and nothing comes twice. */
#include "program.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

enum { ROUNDS = 4000, PAGES = 16 };

static char *map;
static atomic_int running = 2;

static void *sync_on(void *unused)
{
    while (atomic_load(&running))
        need(msync(map, PAGES * PAGE, MS_SYNC) == 0, "msync");
    return unused;
}

static void *receive(void *ends)
{
    int *socket = ends;
    for (int i = 0; i < ROUNDS; i++) {
        int *at = (int *)(map + i % 4 * PAGE + i % 1000 * 4);
        need(recv(*socket, at, sizeof *at, 0) == sizeof *at && *at == i, "each datagram once, in order");
        socklen_t size = sizeof(int);
        int *type = (int *)(map + 5 * PAGE);
        need(getsockopt(*socket, SOL_SOCKET, SO_TYPE, type, &size) == 0 && *type == SOCK_DGRAM, "getsockopt");
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

static void *read_pipe(void *ends)
{
    int *end = ends;
    unsigned char next = 0;
    for (size_t came = 0, i = 0; came < ROUNDS * sizeof(int); i++) {
        unsigned char *at = (unsigned char *)map + 8 * PAGE + i % 4 * PAGE + 4000;
        ssize_t length = read(*end, at, 200);
        need(length > 0, "read");
        for (ssize_t byte = 0; byte < length; byte++)
            need(at[byte] == next++, "each byte of the pipe once, in order");
        came += length;
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "buffers_beside_msync");
    if (command.write)
        close(make_pages(path, PAGES));
    if (!command.check)
        return 0;
    int fd = open_or_fail(path, O_RDWR), ends[2], pair[2];
    map = map_or_fail(fd, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    need(pipe(ends) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0, "pipe and socketpair");
    pthread_t threads[3];
    need(pthread_create(threads, NULL, sync_on, NULL) == 0 && pthread_create(threads + 1, NULL, receive, pair + 1) == 0
             && pthread_create(threads + 2, NULL, read_pipe, ends) == 0, "threads");
    unsigned char byte = 0;
    for (int i = 0; i < ROUNDS; i++) {
        int *from = (int *)(map + 14 * PAGE);
        unsigned char *bytes = (unsigned char *)map + 15 * PAGE + 100;
        *from = i;
        need(send(pair[0], from, sizeof i, 0) == sizeof i, "send");
        for (size_t part = 0; part < sizeof i; part++)
            bytes[part] = byte++;
        need(write(ends[1], bytes, sizeof i) == sizeof i, "write");
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    check(1, "nothing lost, nothing twice");
    return unlink(path) != 0;
}
