/* Bytes that the kernel moves between descriptors: sendfile, splice, copy_file_range; and the calls that ask for room or order. */
#include "program.h"

#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>

/* Of the ioctls that do what fallocate does; the headers keep them for themselves. */
struct room {
    short type, whence;
    long long start, length;
    int rest[6];
};
#define RESERVE _IOW('X', 40, struct room)
#define UNRESERVE _IOW('X', 43, struct room)

static int is(int fd, off_t at, const char *text)
{
    char bytes[64];
    size_t length = strlen(text);
    return pread(fd, bytes, length, at) == (ssize_t)length && memcmp(bytes, text, length) == 0;
}

static void pipes(int fd)
{
    int ends[2];
    char bytes[PAGE];
    off_t at = PAGE + 1;
    need(pipe(ends) == 0, "pipe");
    check(splice(fd, &at, ends[1], NULL, 100, 0) == 100 && at == PAGE + 101 && read(ends[0], bytes, PAGE) == 100
              && all(bytes, 100, 'B'), "splice into a pipe, at an offset");
    check(lseek(fd, 2 * PAGE, SEEK_SET) == 2 * PAGE && splice(fd, NULL, ends[1], NULL, 10, 0) == 10
              && lseek(fd, 0, SEEK_CUR) == 2 * PAGE + 10 && read(ends[0], bytes, PAGE) == 10 && all(bytes, 10, 'C'),
          "and at the descriptor's own");
    at = 3 * PAGE + 5;
    check(write(ends[1], "spliced", 7) == 7 && splice(ends[0], NULL, fd, &at, 100, 0) == 7 && at == 3 * PAGE + 12
              && is(fd, 3 * PAGE + 4, "DsplicedD"), "splice out of a pipe into a page leaves its rest");
    check(splice(ends[0], NULL, fd, &at, 100, SPLICE_F_NONBLOCK) == -1 && errno == EAGAIN, "an empty pipe");
    close(ends[1]);
    check(splice(ends[0], NULL, fd, &at, 100, 0) == 0, "and its end");
    close(ends[0]);
    need(pipe(ends) == 0, "pipe");
    at = 4 * PAGE;
    check(sendfile(ends[1], fd, &at, 20) == 20 && at == 4 * PAGE + 20 && read(ends[0], bytes, PAGE) == 20 && all(bytes, 20, 'E'),
          "sendfile to a pipe");
    check(splice(fd, NULL, fd, NULL, 1, 0) == -1 && errno == EINVAL, "splice needs a pipe");
    /* A pipe that is full, drained by a thread of the same file's other reader. */
    pid_t child = fork();
    if (child == 0) {
        size_t total = 0;
        ssize_t count;
        close(ends[1]);
        while ((count = read(ends[0], bytes, PAGE)) > 0) {
            if (pwrite(fd, bytes, 1, 0) != 1 || lseek(fd, 0, SEEK_CUR) < 0)
                _exit(1);
            total += (size_t)count;
        }
        _exit(total != 6 * PAGE * 16);
    }
    close(ends[0]);
    size_t total = 0;
    for (int i = 0; i < 16; i++)
        for (at = 0; at < 6 * PAGE;) {
            ssize_t count = sendfile(ends[1], fd, &at, (size_t)(6 * PAGE - at));
            need(count > 0, "sendfile");
            total += (size_t)count;
        }
    close(ends[1]);
    check(total == 6 * PAGE * 16 && wait_for(child) == 0, "a full pipe whose reader writes the same file");
}

static void copies(int fd, const char *path)
{
    off_t from = 100, to = 5 * PAGE + 10;
    check(copy_file_range(fd, &from, fd, &to, 30, 0) == 30 && is(fd, 5 * PAGE + 9, "FAAAAAAAAAA") && is(fd, 5 * PAGE + 39, "AF"),
          "copy_file_range inside a file");
    int other = open_or_fail(path, O_RDWR | O_CREAT | O_TRUNC);
    check(lseek(fd, PAGE - 2, SEEK_SET) == PAGE - 2 && copy_file_range(fd, NULL, other, NULL, 4, 0) == 4
              && lseek(fd, 0, SEEK_CUR) == PAGE + 2 && lseek(other, 0, SEEK_CUR) == 4 && is(other, 0, "AABB"), "to another one");
    from = 6 * PAGE;
    check(copy_file_range(fd, &from, other, NULL, 100, 0) == 0 && lseek(other, 0, SEEK_END) == 4, "at the end there is nothing");
    check(sendfile(other, fd, &(off_t){2 * PAGE}, 2 * PAGE) == 2 * PAGE && is(other, 3, "BCCC") && is(other, 4 + PAGE, "DDDDDs")
              && lseek(other, 0, SEEK_END) == 4 + 2 * PAGE, "sendfile between files");
    int append = open_or_fail(path, O_WRONLY | O_APPEND);
    check(copy_file_range(fd, &(off_t){0}, append, NULL, 4, 0) == -1 && errno == EBADF, "not to one that appends");
    check(ioctl(other, FICLONE, fd) == -1 && (errno == EOPNOTSUPP || errno == ENOTTY), "clones are refused");
    int left = 0;
    check(lseek(other, 4, SEEK_SET) == 4 && ioctl(other, FIONREAD, &left) == 0 && left == 2 * PAGE, "FIONREAD");
    struct room range = {.whence = SEEK_SET, .start = PAGE, .length = PAGE};
    check(ioctl(other, UNRESERVE, &range) == 0 && is(other, PAGE - 1, "C") && is(other, 2 * PAGE, "D"), "a hole by ioctl");
    char bytes[PAGE];
    check(pread(other, bytes, PAGE, PAGE) == PAGE && all(bytes, PAGE, 0), "is zeros");
    check(ioctl(other, RESERVE, &range) == 0 && pread(other, bytes, PAGE, PAGE) == PAGE && all(bytes, PAGE, 0), "and room changes nothing");
    close(append), close(other);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "moving_bytes"), *other = path_in(command.dir, "moving_copy");
    if (command.write)
        close(make_pages(path, 6));
    if (!command.check)
        return 0;
    int fd = open_or_fail(path, O_RDWR);
    check(posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED) == 0 && posix_fadvise(fd, 0, PAGE, POSIX_FADV_DONTNEED) == 0
              && is(fd, 0, "AAAA"), "advice changes nothing");
    check(posix_fadvise(fd, 0, 0, 77) == EINVAL && posix_fadvise(-1, 0, 0, POSIX_FADV_NORMAL) == EBADF, "wrong advice");
    pipes(fd);
    copies(fd, other);
    check(sync_file_range(fd, 0, PAGE, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) == 0, "sync_file_range");
    check(sync_file_range(fd, 0, PAGE, 77) == -1 && errno == EINVAL && sync_file_range(fd, -1, PAGE, 0) == -1 && errno == EINVAL,
          "with wrong arguments");
    check(syncfs(fd) == 0, "syncfs");
    sync();
    struct stat before, after;
    check(fallocate(fd, FALLOC_FL_KEEP_SIZE, 8 * PAGE, PAGE) == 0 && fstat(fd, &before) == 0 && before.st_size == 6 * PAGE, "room behind the end");
    check(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, PAGE) == -1 && errno == EOPNOTSUPP, "a hole changes no size");
    check(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, PAGE) == -1 && errno == EOPNOTSUPP, "no range is taken out");
    check(fallocate(fd, 0, 0, 0) == -1 && errno == EINVAL && fallocate(fd, 0, -1, 5) == -1 && errno == EINVAL, "an empty range");
    check(fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 10, PAGE) == 0 && fstat(fd, &after) == 0
              && after.st_size == 6 * PAGE && is(fd, PAGE + 10, "BBBB"), "a hole across pages");
    check(posix_fallocate(fd, 6 * PAGE, 10) == 0 && lseek(fd, 0, SEEK_END) == 6 * PAGE + 10, "posix_fallocate grows");
    return unlink(path) != 0 || unlink(other) != 0;
}
