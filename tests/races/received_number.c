/*
 * A number means what was received under it, whatever the C library had there before and closed by itself. FILE is
 * one that this host has no page of.
 *
 *     received_number FILE
 */
#include "race.h"
#include <dirent.h>
#include <sys/socket.h>

union control {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr aligned;
};

static struct msghdr message(struct iovec *text, union control *control)
{
    return (struct msghdr){.msg_iov = text, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof *control};
}

int main(int argc, char **argv)
{
    must(argc == 2);
    int pair[2], fd = open(argv[1], O_RDONLY), received;
    must(fd >= 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    struct stat status;
    DIR *directory = opendir("/");
    must(directory != NULL);
    int number = dirfd(directory);
    must(fstatat(number, "proc", &status, 0) == 0 && closedir(directory) == 0);
    char byte = 0, text[5] = "";
    struct iovec one = {&byte, 1};
    union control control = {.aligned = {CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.aligned), &fd, sizeof fd);
    struct msghdr out = message(&one, &control);
    must(sendmsg(pair[0], &out, 0) == 1);
    struct msghdr in = message(&one, &control);
    must(recvmsg(pair[1], &in, 0) == 1);
    memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&in)), sizeof received);
    must(received == number);
    ssize_t count = pread(received, text, 4, 0);
    printf("%zd bytes: %s\n", count, text);
    return 0;
}
