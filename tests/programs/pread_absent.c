/* A process that never maps the file reads what another one wrote: no hole's zeros in place of data. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "pread_absent");
    if (command.write) {
        int fd = make_pages(path, 40);
        check(pwrite(fd, "mark", 4, 17 * PAGE + 100) == 4 && close(fd) == 0, "a file is written and closed");
    }
    if (!command.check)
        return 0;

    char page[PAGE], two[2 * PAGE];
    struct stat status;
    int fd = open_or_fail(path, O_RDONLY), wrong = 0;
    check(fstat(fd, &status) == 0 && status.st_size == 40 * PAGE, "its size is right");
    check(pread(fd, page, 4, 17 * PAGE + 100) == 4 && memcmp(page, "mark", 4) == 0, "pread finds the mark");
    check(pread(fd, two, 2 * PAGE, 5 * PAGE - 1000) == 2 * PAGE && all(two, 1000, 'E')
              && all(two + 1000, PAGE, 'F') && all(two + 1000 + PAGE, PAGE - 1000, 'G'),
          "an unaligned pread over three pages is right");
    for (int i = 0; i < 40; i++) {
        wrong += read(fd, page, PAGE) != PAGE || page[0] != 'A' + i % 26 || page[PAGE - 1] != 'A' + i % 26;
    }
    check(wrong == 0, "read finds all pages");
    check(read(fd, page, PAGE) == 0, "then the end");
    check(pread(fd, page, PAGE, 40 * PAGE - 10) == 10 && all(page, 10, 'N'), "pread stops at the end");
    check(pread(fd, page, PAGE, 50 * PAGE) == 0, "pread beyond the end returns 0");
    return unlink(path) != 0;
}
