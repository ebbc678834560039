/* Offsets that can't be read, are negative, or lie behind the end of any file; descriptors that are good for nothing (O_PATH). */
#include "program.h"

#include <sys/sendfile.h>

static void line(const char *call, long result)
{
    dprintf(STDOUT_FILENO, "ok: %s: %s\n", call, result < 0 ? strerrorname_np(errno) : "done");
}

static void offsets(int from, int to, off_t *at, const char *what)
{
    char call[64];
    int ends[2];
    need(pipe(ends) == 0 && write(ends[1], "bytes", 5) == 5, "pipe");
#define say(name) (snprintf(call, sizeof call, "%s, %s", name, what), call)
    line(say("copy_file_range from"), copy_file_range(from, at, to, NULL, 10, 0));
    line(say("copy_file_range to"), copy_file_range(from, NULL, to, at, 10, 0));
    line(say("sendfile"), sendfile(to, from, at, 10));
    line(say("splice out"), splice(from, at, ends[1], NULL, 10, 0));
    line(say("splice in"), splice(ends[0], NULL, to, at, 5, 0));
    close(ends[0]);
    close(ends[1]);
}

static void good_for_nothing(const char *path, int to)
{
    int fd = open(path, O_PATH);
    char byte;
    need(fd >= 0, "open as a path");
    line("read", read(fd, &byte, 1));
    line("pwrite", pwrite(fd, &byte, 1, 0));
    line("lseek", lseek(fd, 0, SEEK_DATA));
    line("ftruncate", ftruncate(fd, 10));
    line("fallocate", fallocate(fd, 0, 0, 10));
    line("fsync", fsync(fd));
    line("fdatasync", fdatasync(fd));
    line("sendfile", sendfile(to, fd, NULL, 1));
    line("copy_file_range", copy_file_range(fd, NULL, to, NULL, 1, 0));
    close(fd);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "wrong_offsets"), *other = path_in(command.dir, "wrong_offsets.to");
    if (!command.check)
        return 0;
    int from = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600), to = open(other, O_RDWR | O_CREAT | O_TRUNC, 0600);
    need(from >= 0 && to >= 0 && write(from, "0123456789abcdef", 16) == 16, "files");
    need(lseek(from, 0, SEEK_SET) == 0, "lseek");
    off_t negative = -5;
    offsets(from, to, (off_t *)8, "a bad pointer");
    offsets(from, to, &negative, "a negative offset");
    line("pwrite behind every end", pwrite(to, "1234567890", 10, INT64_MAX - 5));
    line("pread behind every end", pread(to, &negative, 8, INT64_MAX - 5));
    struct stat status;
    check(fstat(to, &status) == 0 && status.st_size == 0, "nothing was written");
    good_for_nothing(path, to);
    return unlink(path) != 0 || unlink(other) != 0;
}
