/* Kernel AIO by number: requests read pages that are absent, write into parts of them, and are complete when io_getevents says so. */
#include "program.h"

#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { PAGES = 64, SIZE = PAGES * PAGE };

static aio_context_t context;

/* Submits requests and waits for all; the answer of the one whose data is `which`. */
static long carry_out(struct iocb **requests, long count, uint64_t which)
{
    struct io_event events[8];
    long answer = -1000;
    if (syscall(SYS_io_submit, context, count, requests) != count ||
        syscall(SYS_io_getevents, context, count, 8, events, NULL) != count)
        return -2000;
    for (long i = 0; i < count; i++)
        if (events[i].data == which)
            answer = (long)events[i].res;
    return answer;
}

static struct iocb request(int operation, int fd, void *bytes, size_t length, long at)
{
    return (struct iocb){.aio_data = (uint64_t)at, .aio_lio_opcode = operation, .aio_fildes = fd,
                         .aio_buf = (uintptr_t)bytes, .aio_nbytes = length, .aio_offset = at};
}

static long one(struct iocb one)
{
    struct iocb *requests[] = {&one};
    return carry_out(requests, 1, one.aio_data);
}

static char expected(long at) { return (char)(at / PAGE * 7 + at % 251); }

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "kernel_aio");
    static char bytes[SIZE], more[SIZE];
    check(syscall(SYS_io_setup, 8, &context) == 0, "a context");
    if (command.write) {
        int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        for (long i = 0; i < SIZE; i++)
            bytes[i] = expected(i);
        check(one(request(IOCB_CMD_PWRITE, fd, bytes, SIZE, 0)) == SIZE, "a request makes the file longer");
        struct stat status;
        check(fstat(fd, &status) == 0 && status.st_size == SIZE, "as long as it wrote");
        check(one(request(IOCB_CMD_FSYNC, fd, NULL, 0, 0)) == 0, "a request syncs it");
        close(fd);
    }
    if (command.check) {
        int fd = open(path, O_RDWR), reader = open(path, O_RDONLY);
        struct iocb ten = request(IOCB_CMD_PREAD, fd, more, 10, 5 * PAGE + 100);
        struct iocb pages = request(IOCB_CMD_PREAD, fd, more + PAGE, 3 * PAGE, 20 * PAGE + 1);
        struct iocb own = request(IOCB_CMD_PREAD, open("/proc/self/exe", O_RDONLY), more + 8 * PAGE, 4, 0);
        struct iocb *three[] = {&ten, &own, &pages};
        check(carry_out(three, 3, pages.aio_data) == 3 * PAGE, "three requests at once, one of them on another file");
        int same = memcmp(more + 8 * PAGE, "\177ELF", 4) == 0;
        for (long i = 0; i < 10; i++)
            same &= more[i] == expected(5 * PAGE + 100 + i);
        for (long i = 0; i < 3 * PAGE; i++)
            same &= more[PAGE + i] == expected(20 * PAGE + 1 + i);
        check(same, "read what is there");
        struct iovec parts[2] = {{bytes, 3}, {bytes + 100, 4}};
        memcpy(bytes, "abc", 3), memcpy(bytes + 100, "defg", 4);
        check(one(request(IOCB_CMD_PWRITEV, fd, parts, 2, 30 * PAGE + 4093)) == 7, "a vector is written across an edge");
        check(pread(reader, more, 2 * PAGE, 30 * PAGE) == 2 * PAGE, "read back");
        same = memcmp(more + 4093, "abcdefg", 7) == 0;
        for (long i = 0; i < 2 * PAGE; i++)
            same &= (i >= 4093 && i < 4100) || more[i] == expected(30 * PAGE + i);
        check(same, "the rest of both pages is as it was");
        struct iovec halves[2] = {{more, 5}, {more + 50, 5}};
        check(one(request(IOCB_CMD_PREADV, fd, halves, 2, SIZE - 7)) == 7, "a vector is read up to the end");
        check(more[0] == expected(SIZE - 7) && more[51] == expected(SIZE - 1), "in its parts");
        check(one(request(IOCB_CMD_PREAD, fd, more, 10, SIZE)) == 0, "nothing behind the end");
        struct iocb wrong = request(IOCB_CMD_PWRITE, reader, bytes, 10, 0);
        struct iocb *requests[] = {&wrong};
        check(syscall(SYS_io_submit, context, 1, requests) == -1 && errno == EBADF, "no write to what is read only: EBADF");
        wrong = request(99, fd, bytes, 10, 0);
        check(syscall(SYS_io_submit, context, 1, requests) == -1 && errno == EINVAL, "an operation that there is not: EINVAL");
        check(syscall(SYS_io_submit, context, 0, requests) == 0, "no request at all: 0");
        check(unlink(path) == 0, "removed");
    }
    check(syscall(SYS_io_destroy, context) == 0, "the context is gone");
    return 0;
}
