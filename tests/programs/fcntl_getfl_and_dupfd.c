/* fcntl says how a descriptor was opened, changes what can be changed, and duplicates it. */
#include "program.h"

static int mode_of(int fd)
{
    return fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "fcntl_getfl_and_dupfd");
    if (command.write)
        close(make_pages(path, 3));
    if (!command.check)
        return 0;

    char bytes[4];
    int both = open_or_fail(path, O_RDWR), reader = open_or_fail(path, O_RDONLY | O_CLOEXEC);
    int writer = open_or_fail(path, O_WRONLY | O_APPEND);
    check(mode_of(both) == O_RDWR, "O_RDWR is O_RDWR");
    check(mode_of(reader) == O_RDONLY, "O_RDONLY is O_RDONLY");
    check(mode_of(writer) == (O_WRONLY | O_APPEND), "O_WRONLY with O_APPEND is that");
    check(fcntl(both, F_GETFD) == 0 && fcntl(reader, F_GETFD) == FD_CLOEXEC, "F_GETFD knows O_CLOEXEC");
    check(read(writer, bytes, 1) == -1 && errno == EBADF, "a write-only one is not read");

    int high = fcntl(both, F_DUPFD, 300), closing = fcntl(both, F_DUPFD_CLOEXEC, 300);
    check(high == 300 && closing == 301, "F_DUPFD gives the lowest free number from there on");
    check(fcntl(high, F_GETFD) == 0 && fcntl(closing, F_GETFD) == FD_CLOEXEC, "F_DUPFD_CLOEXEC sets it");
    check(lseek(high, PAGE, SEEK_SET) == PAGE && read(closing, bytes, 2) == 2 && memcmp(bytes, "BB", 2) == 0,
          "both share the offset");
    char *map = map_or_fail(high, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    check(close(both) == 0 && close(closing) == 0 && map[2 * PAGE] == 'C', "a copy can be mapped");

    check(fcntl(high, F_SETFL, O_APPEND) == 0 && mode_of(high) == (O_RDWR | O_APPEND), "F_SETFL O_APPEND");
    check(write(high, "end", 3) == 3 && lseek(high, 0, SEEK_END) == 3 * PAGE + 3, "and writes append");
    check(fcntl(high, F_SETFL, 0) == 0 && mode_of(high) == O_RDWR, "and clears it");
    check(fcntl(299, F_GETFL) == -1 && errno == EBADF, "a closed number is EBADF");
    return unlink(path) != 0;
}
