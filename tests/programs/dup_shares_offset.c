/* Descriptors made by dup, dup2, dup3 and fork share one offset; those of two opens don't. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "dup_shares_offset");
    if (command.write)
        close(make_pages(path, 4));
    if (!command.check)
        return 0;

    char bytes[PAGE];
    int fd = open_or_fail(path, O_RDWR), copy = dup(fd), other = open_or_fail(path, O_RDONLY);
    check(copy >= 0 && copy != fd && read(fd, bytes, 10) == 10 && lseek(copy, 0, SEEK_CUR) == 10,
          "a read through one moves the other's offset");
    check(lseek(copy, PAGE, SEEK_SET) == PAGE && read(fd, bytes, 1) == 1 && bytes[0] == 'B', "and a seek");
    check(lseek(other, 0, SEEK_CUR) == 0, "a second open has its own");
    check(dup2(fd, 200) == 200 && lseek(200, 0, SEEK_CUR) == PAGE + 1, "dup2 shares it");
    check(dup3(fd, 201, O_CLOEXEC) == 201 && fcntl(201, F_GETFD) == FD_CLOEXEC, "dup3 with O_CLOEXEC");
    check(dup3(fd, fd, 0) == -1 && errno == EINVAL, "dup3 onto itself is EINVAL");
    check(dup2(fd, fd) == fd, "dup2 onto itself is that");
    check(dup2(other, 200) == 200 && lseek(200, 0, SEEK_CUR) == 0, "dup2 over one of them replaces it");

    pid_t child = fork();
    if (child == 0)
        _exit(read(copy, bytes, PAGE) != PAGE || bytes[0] != 'B' || bytes[PAGE - 1] != 'C');
    check(wait_for(child) == 0 && lseek(fd, 0, SEEK_CUR) == 2 * PAGE + 1, "a child's read moves it here");
    check(close(fd) == 0 && write(copy, "x", 1) == 1 && pread(other, bytes, 3, 2 * PAGE) == 3
              && memcmp(bytes, "CxC", 3) == 0, "the copy writes on after the first is closed");
    check(close(copy) == 0 && read(201, bytes, 1) == 1 && bytes[0] == 'C', "and the third after both");
    check(close(fd) == -1 && errno == EBADF, "closing twice is EBADF");
    return unlink(path) != 0;
}
