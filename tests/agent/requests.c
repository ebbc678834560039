/* Requests that are handed to the kernel in memory, before and after a program uses netmem. Prints FAIL at what is not refused as
   docs/SEMANTICS.md says. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void check(int holds, const char *sentence)
{
    printf("%s %s (errno %d)\n", holds ? "ok:" : "FAIL", sentence, errno);
    if (!holds)
        exit(1);
}

static long read_one(aio_context_t context, int fd)
{
    static char bytes[16];
    struct iocb request = {
        .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = fd, .aio_buf = (uintptr_t)bytes, .aio_nbytes = 16};
    struct iocb *requests[1] = {&request};
    return syscall(SYS_io_submit, context, 1, requests);
}

int main(int argc, char **argv)
{
    aio_context_t before = 0;
    struct io_event event;
    char parameters[256] = {0};
    int own = open("/proc/self/exe", O_RDONLY);
    check(argc == 2 && own >= 0 && syscall(SYS_io_setup, 1, &before) == 0, "a context before netmem is used");
    check(read_one(before, own) == 1 && syscall(SYS_io_getevents, before, 1, 1, &event, NULL) == 1, "which works");
    int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    check(fd >= 0 && write(fd, "data", 4) == 4, "a region");
    check(read_one(before, own) == 1 && syscall(SYS_io_getevents, before, 1, 1, &event, NULL) == 1, "which goes on working");
    check(read_one(before, fd) == 1 && syscall(SYS_io_getevents, before, 1, 1, &event, NULL) == 1 && event.res == 4, "on a region too");
    check(syscall(SYS_io_uring_setup, 1, parameters) == -1 && errno == ENOSYS, "no ring afterwards: ENOSYS");
    int (*init)(unsigned, void *, unsigned) = (int (*)(unsigned, void *, unsigned))dlsym(RTLD_DEFAULT, "io_uring_queue_init");
    check(init != NULL && init(1, parameters, 0) == -ENOSYS, "liburing's io_uring_queue_init says so in its own way");
    return 0;
}
