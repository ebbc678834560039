/* What truncation cuts off never comes back: the tail of the last page and the regrown part are zeros. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "truncate_shrink_grow_zeros");
    char page[PAGE];
    struct stat status;
    if (command.write) {
        int fd = make_pages(path, 8);
        check(fsync(fd) == 0, "eight pages are kept");
        char *map = map_or_fail(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
        check(ftruncate(fd, 2 * PAGE + 100) == 0 && fstat(fd, &status) == 0
                  && status.st_size == 2 * PAGE + 100,
              "the file shrinks into its third page");
        check(touch(map + 3 * PAGE, 0) == SIGBUS, "a load beyond the new end is SIGBUS");
        check(all(map + 2 * PAGE, 100, 'C') && all(map + 2 * PAGE + 100, PAGE - 100, 0),
              "the tail of the last page is zeros");
        check(ftruncate(fd, 8 * PAGE) == 0 && all(map + 2 * PAGE + 100, 6 * PAGE - 100, 0),
              "it grows again, and all beyond is zeros");
        check(msync(map, 8 * PAGE, MS_SYNC) == 0 && all(map + 2 * PAGE + 100, 6 * PAGE - 100, 0),
              "after msync as well");
        map[5 * PAGE] = 'n';
        close(fd);
    }
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    check(fstat(fd, &status) == 0 && status.st_size == 8 * PAGE, "the next process finds the size");
    check(pread(fd, page, PAGE, PAGE) == PAGE && all(page, PAGE, 'B'), "what was before the cut");
    check(pread(fd, page, PAGE, 2 * PAGE) == PAGE && all(page, 100, 'C') && all(page + 100, PAGE - 100, 0),
          "zeros from the cut on");
    check(pread(fd, page, PAGE, 6 * PAGE) == PAGE && all(page, PAGE, 0), "zeros in the regrown pages");
    check(pread(fd, page, PAGE, 5 * PAGE) == PAGE && page[0] == 'n' && all(page + 1, PAGE - 1, 0),
          "and what was stored after it grew");
    check(truncate(path, 50) == 0 && truncate(path, PAGE) == 0 && pread(fd, page, PAGE, 0) == PAGE
              && all(page, 50, 'A') && all(page + 50, PAGE - 50, 0), "truncate by path does the same");
    check(ftruncate(fd, -1) == -1 && errno == EINVAL, "a negative size is EINVAL");
    return unlink(path) != 0;
}
