/* What is received comes whole into mapped pages, and what is sent from them: streams, datagrams, vectors, many at once. */
#include "buffers.h"
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static char text[6000];

static void receive(struct area *area, int state, int type, const char *what)
{
    char sentence[128];
    int ends[2];
    need(socketpair(AF_UNIX, type, 0, ends) == 0, "socketpair");
    snprintf(sentence, sizeof sentence, "%s into %s pages", what, state == SYNCED ? "synced" : "untouched");
    for (int way = 0; way < 5; way++) {
        char *at = place(area, state, 6000);
        struct iovec parts[2] = {{at, 3000}, {at + 3000, 3000}};
        struct msghdr *message = memset(place(area, state, sizeof *message), 0, sizeof *message);
        struct iovec *vector = memcpy(place(area, state, sizeof parts), parts, sizeof parts);
        message->msg_iov = vector;
        message->msg_iovlen = 2;
        msync(area->map, area->pages * PAGE, MS_SYNC);
        need(send(ends[0], text, 6000, 0) == 6000, "send");
        ssize_t came = way == 0 ? recv(ends[1], at, 6000, 0)
                     : way == 1 ? read(ends[1], at, 6000)
                     : way == 2 ? readv(ends[1], vector, 2)
                     : way == 3 ? recvmsg(ends[1], message, 0)
                                : recvfrom(ends[1], at, 6000, 0, NULL, NULL);
        need(came == 6000 && memcmp(at, text, 6000) == 0 && untouched_around(at, 6000, state), sentence);
        need(recv(ends[1], at, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN, "nothing twice");
    }
    check(1, sentence);
    snprintf(sentence, sizeof sentence, "%s from %s pages", what, state == SYNCED ? "synced" : "untouched");
    for (int way = 0; way < 5; way++) {
        static char into[7000];
        char *at = place(area, state, 6000);
        if (state == SYNCED)
            memcpy(at, text, 6000);
        struct iovec vector[2] = {{at, 3000}, {at + 3000, 3000}};
        struct msghdr message = {.msg_iov = vector, .msg_iovlen = 2};
        msync(area->map, area->pages * PAGE, MS_SYNC);
        ssize_t went = way == 0 ? send(ends[0], at, 6000, 0)
                     : way == 1 ? write(ends[0], at, 6000)
                     : way == 2 ? writev(ends[0], vector, 2)
                     : way == 3 ? sendmsg(ends[0], &message, 0)
                                : sendto(ends[0], at, 6000, 0, NULL, 0);
        need(went == 6000 && recv(ends[1], into, 7000, 0) == 6000 && memcmp(at, into, 6000) == 0, sentence);
    }
    check(1, sentence);
    close(ends[0]);
    close(ends[1]);
}

static void many(struct area *area, int state)
{
    int ends[2];
    need(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0, "socketpair");
    struct mmsghdr *messages = place(area, state, 3 * sizeof *messages);
    struct iovec *vectors = place(area, state, 3 * sizeof *vectors);
    memset(messages, 0, 3 * sizeof *messages);
    for (int i = 0; i < 3; i++) {
        vectors[i] = (struct iovec){place(area, state, 100), 100};
        messages[i].msg_hdr.msg_iov = vectors + i;
        messages[i].msg_hdr.msg_iovlen = 1;
        need(send(ends[0], text + i * 100, 50 + i, 0) == 50 + i, "send");
    }
    msync(area->map, area->pages * PAGE, MS_SYNC);
    check(recvmmsg(ends[1], messages, 3, 0, NULL) == 3 && messages[0].msg_len == 50 && messages[2].msg_len == 52
              && memcmp(vectors[1].iov_base, text + 100, 51) == 0 && memcmp(vectors[2].iov_base, text + 200, 52) == 0,
          "recvmmsg takes three datagrams");
    msync(area->map, area->pages * PAGE, MS_SYNC);
    char into[200];
    check(sendmmsg(ends[0], messages, 3, 0) == 3 && messages[2].msg_len == 100 && recv(ends[1], into, 200, 0) == 100
              && memcmp(into, vectors[0].iov_base, 100) == 0, "sendmmsg sends three");
    close(ends[0]);
    close(ends[1]);
}

static void past_the_end(struct area *area)
{
    int ends[2];
    need(pipe(ends) == 0 && write(ends[1], text, 10) == 10, "pipe");
    char *behind = area->map + area->pages * PAGE;
    check(read(ends[0], behind, 10) == -1 && errno == EFAULT, "read behind the end of the file is EFAULT");
    check(write(ends[1], behind, 10) == -1 && errno == EFAULT, "and so is write");
    check(read(ends[0], area->map, 10) == 10 && memcmp(area->map, text, 10) == 0, "and what was in the pipe stays");
    check(read(ends[0], area->map, 0) == 0, "nothing is nothing");
}

int main(int argc, char **argv)
{
    enum { PAGES = 400 };
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "buffers_of_sockets");
    if (command.write)
        close(make_pages(path, PAGES));
    if (!command.check)
        return 0;
    for (int i = 0; i < 6000; i++)
        text[i] = 'a' + i % 23;
    struct area area = area_of(path, PAGES);
    munmap(area.map, PAGES * PAGE);
    int fd = open_or_fail(path, O_RDWR);
    area.map = map_or_fail(fd, (PAGES + 4) * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    for (int state = UNTOUCHED; state < STATES; state++) {
        receive(&area, state, SOCK_STREAM, "a stream");
        receive(&area, state, SOCK_DGRAM, "datagrams");
        receive(&area, state, SOCK_SEQPACKET, "packets");
        many(&area, state);
    }
    past_the_end(&area);
    return unlink(path) != 0;
}
