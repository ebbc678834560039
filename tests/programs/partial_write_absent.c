/* Ten bytes written into a page that was never touched leave the rest of it as it was. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "partial_write_absent");
    if (command.write)
        check(close(make_pages(path, 8)) == 0, "the file is written and closed");
    if (!command.check)
        return 0;

    char page[PAGE];
    int fd = open_or_fail(path, O_RDWR);
    check(pwrite(fd, "0123456789", 10, 3 * PAGE + 2000) == 10, "pwrite of 10 bytes");
    check(pread(fd, page, PAGE, 3 * PAGE) == PAGE && all(page, 2000, 'D')
              && memcmp(page + 2000, "0123456789", 10) == 0 && all(page + 2010, PAGE - 2010, 'D'),
          "the page is what it was around them");
    check(lseek(fd, 5 * PAGE - 5, SEEK_SET) == 5 * PAGE - 5 && write(fd, "0123456789", 10) == 10,
          "write of 10 bytes across two pages");
    close(fd);

    fd = open_or_fail(path, O_RDONLY);
    char *map = map_or_fail(fd, 8 * PAGE, PROT_READ, MAP_SHARED);
    check(all(map + 4 * PAGE, PAGE - 5, 'E') && memcmp(map + 5 * PAGE - 5, "0123456789", 10) == 0
              && all(map + 5 * PAGE + 5, PAGE - 5, 'F'), "a mapping made later agrees");
    check(all(map + 6 * PAGE, PAGE, 'G')
              && all(map + 7 * PAGE, PAGE, 'H'), "pages without a write are untouched");
    return unlink(path) != 0;
}
