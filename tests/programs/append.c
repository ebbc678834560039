/* O_APPEND: each write goes to the end, whichever descriptor or process, and truncation, moved it last. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "append");
    if (command.write) {
        unlink(path);
        int fd = open_or_fail(path, O_WRONLY | O_CREAT | O_APPEND);
        check(write(fd, "one\n", 4) == 4 && lseek(fd, 0, SEEK_CUR) == 4, "a write goes to the end");
        check(lseek(fd, 0, SEEK_SET) == 0 && write(fd, "two\n", 4) == 4, "wherever the offset is");
        close(fd);
    }
    if (!command.check)
        return 0;

    char bytes[3 * PAGE];
    int fd = open_or_fail(path, O_RDWR | O_APPEND), other = open_or_fail(path, O_WRONLY | O_APPEND);
    check(write(other, "three\n", 6) == 6 && write(fd, "four\n", 5) == 5, "two descriptors append in turn");
    pid_t child = fork();
    if (child == 0)
        _exit(write(fd, "five\n", 5) != 5);
    check(wait_for(child) == 0, "so does a child");
    check(pread(fd, bytes, sizeof bytes, 0) == 24 && memcmp(bytes, "one\ntwo\nthree\nfour\nfive\n", 24) == 0,
          "all lines are there in order");
    memset(bytes, '.', sizeof bytes);
    check(write(fd, bytes, sizeof bytes) == sizeof bytes && lseek(fd, 0, SEEK_END) == 24 + 3 * PAGE,
          "an append over several pages");
    check(ftruncate(fd, 4) == 0 && write(other, "2\n", 2) == 2 && pread(fd, bytes, sizeof bytes, 0) == 6
              && memcmp(bytes, "one\n2\n", 6) == 0, "after truncation the end is the new end");
    return unlink(path) != 0;
}
