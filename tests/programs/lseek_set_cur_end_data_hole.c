/* lseek: SET, CUR, END, and DATA and HOLE, which speak of the file's holes and of no others. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "lseek");
    char page[PAGE];
    memset(page, 'd', PAGE);
    if (command.write) {
        unlink(path);
        int fd = open_or_fail(path, O_RDWR | O_CREAT);
        need(ftruncate(fd, 64 * PAGE) == 0, "ftruncate");
        need(pwrite(fd, page, PAGE, 16 * PAGE) == PAGE, "pwrite");
        need(pwrite(fd, page, PAGE, 32 * PAGE) == PAGE, "pwrite");
        need(pwrite(fd, page, PAGE, 33 * PAGE) == PAGE, "pwrite");
        check(close(fd) == 0, "64 pages, of which 16, 32 and 33 were written");
    }
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    check(lseek(fd, 0, SEEK_END) == 64 * PAGE, "SEEK_END is the size");
    check(lseek(fd, -PAGE, SEEK_CUR) == 63 * PAGE, "SEEK_CUR goes back");
    check(lseek(fd, 99 * PAGE, SEEK_SET) == 99 * PAGE && read(fd, page, 1) == 0,
          "SEEK_SET goes beyond the end");
    check(lseek(fd, -1, SEEK_SET) == -1 && errno == EINVAL, "a negative offset is EINVAL");
    check(lseek(fd, 0, 99) == -1 && errno == EINVAL, "so is an unknown whence");
    check(lseek(fd, 0, SEEK_DATA) == 16 * PAGE, "SEEK_DATA finds the first written page");
    check(lseek(fd, 16 * PAGE + 5, SEEK_DATA) == 16 * PAGE + 5, "inside data it stays");
    check(lseek(fd, 16 * PAGE, SEEK_HOLE) == 17 * PAGE, "SEEK_HOLE finds its end");
    check(lseek(fd, 17 * PAGE, SEEK_DATA) == 32 * PAGE, "SEEK_DATA finds the next");
    check(lseek(fd, 32 * PAGE, SEEK_HOLE) == 34 * PAGE, "two pages are one piece of data");
    check(lseek(fd, 34 * PAGE, SEEK_DATA) == -1 && errno == ENXIO, "no more data is ENXIO");
    check(lseek(fd, 64 * PAGE, SEEK_HOLE) == -1 && errno == ENXIO, "a hole beyond the end is ENXIO");
    check(lseek(fd, 33 * PAGE, SEEK_SET) == 33 * PAGE && read(fd, page, PAGE) == PAGE && all(page, PAGE, 'd'),
          "data read where it was found is data");
    return unlink(path) != 0;
}
