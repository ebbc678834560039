/* fallocate and posix_fallocate over data keep it, and a punched hole is zeros and stays zeros. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "fallocate_absent");
    if (command.write) {
        int fd = make_pages(path, 8);
        check(posix_fallocate(fd, 0, 8 * PAGE) == 0, "posix_fallocate over data that was just written");
        close(fd);
    }
    if (!command.check)
        return 0;

    char page[PAGE];
    struct stat status;
    int fd = open_or_fail(path, O_RDWR);
    check(posix_fallocate(fd, PAGE, 2 * PAGE) == 0 && pread(fd, page, PAGE, PAGE) == PAGE
              && all(page, PAGE, 'B'),
          "posix_fallocate keeps data that nobody looked at");
    check(fallocate(fd, 0, 3 * PAGE + 7, PAGE) == 0 && pread(fd, page, PAGE, 3 * PAGE) == PAGE
              && all(page, PAGE, 'D'), "so does fallocate of an unaligned range");
    check(fallocate(fd, FALLOC_FL_KEEP_SIZE, 7 * PAGE, 4 * PAGE) == 0 && fstat(fd, &status) == 0
              && status.st_size == 8 * PAGE, "FALLOC_FL_KEEP_SIZE keeps the size");
    check(fallocate(fd, 0, 8 * PAGE, 2 * PAGE) == 0 && fstat(fd, &status) == 0 && status.st_size == 10 * PAGE,
          "without it the file grows");
    check(pread(fd, page, PAGE, 9 * PAGE) == PAGE && all(page, PAGE, 0), "what it grew by is zeros");
    check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5 * PAGE, PAGE) == 0
              && pread(fd, page, PAGE, 5 * PAGE) == PAGE && all(page, PAGE, 0), "a punched page is zeros");
    check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 6 * PAGE, 100) == 0
              && pread(fd, page, PAGE, 6 * PAGE) == PAGE && all(page, 100, 0)
              && all(page + 100, PAGE - 100, 'G'),
          "a hole punched in part of a page keeps the rest");
    check(fsync(fd) == 0 && pread(fd, page, PAGE, 5 * PAGE) == PAGE && all(page, PAGE, 0),
          "it is zeros after fsync too");
    return unlink(path) != 0;
}
