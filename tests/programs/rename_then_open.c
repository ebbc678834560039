/* rename: the new name has the pages, the old one is gone, and open files and mappings follow. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *from = path_in(command.dir, "rename_from"), *to = path_in(command.dir, "rename_to");
    const char *other = path_in(command.dir, "rename_other");
    if (command.write) {
        close(make_pages(from, 5));
        unlink(to);
        int fd = open_or_fail(from, O_RDWR);
        char *map = map_or_fail(fd, 5 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
        map[0] = 'b';
        check(rename(from, to) == 0, "rename of an open, mapped file");
        map[1] = 'a';
        check(map[0] == 'b' && pwrite(fd, "w", 1, PAGE) == 1 && map[PAGE] == 'w', "it can be stored to");
        check(msync(map, 5 * PAGE, MS_SYNC) == 0 && close(fd) == 0, "and kept");
    }
    if (!command.check)
        return 0;

    char page[PAGE];
    check(open(from, O_RDONLY) == -1 && errno == ENOENT, "the old name is gone");
    int fd = open_or_fail(to, O_RDONLY);
    check(pread(fd, page, PAGE, 0) == PAGE && memcmp(page, "baA", 3) == 0, "the new one has what was stored");
    check(pread(fd, page, PAGE, PAGE) == PAGE && page[0] == 'w' && page[1] == 'B', "and what was written");
    check(pread(fd, page, PAGE, 4 * PAGE) == PAGE && all(page, PAGE, 'E'), "and pages nobody touched");

    close(make_pages(other, 2));
    check(rename(to, other) == 0 && access(to, F_OK) == -1, "rename over a file that exists");
    int replaced = open_or_fail(other, O_RDONLY);
    check(lseek(replaced, 0, SEEK_END) == 5 * PAGE && pread(replaced, page, 3, 0) == 3
              && memcmp(page, "baA", 3) == 0, "replaces it");
    check(rename(from, to) == -1 && errno == ENOENT, "rename of what is not there is ENOENT");
    need(mkdir(to, 0700) == 0, "mkdir");
    check(rename(other, to) == -1 && errno == EISDIR, "rename over a directory is EISDIR");
    check(rename(to, other) == -1 && errno == ENOTDIR, "rename of a directory over a file is ENOTDIR");
    return rmdir(to) != 0 || unlink(other) != 0;
}
