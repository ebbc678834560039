/* A file that is unlinked while it is open and mapped lives on, nameless, until its last user is gone. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "unlink_while_mapped");
    if (command.write)
        close(make_pages(path, 6));
    if (!command.check)
        return 0;

    char page[PAGE];
    struct stat status;
    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    map[0] = 'x';
    check(unlink(path) == 0, "unlink");
    check(access(path, F_OK) == -1 && errno == ENOENT, "the name is gone");
    check(fstat(fd, &status) == 0 && status.st_nlink == 0 && status.st_size == 6 * PAGE, "no link is left");
    check(map[0] == 'x' && all(map + 1, PAGE - 1, 'A'), "the mapping keeps its stores");
    check(all(map + 3 * PAGE, PAGE, 'D'), "a page first touched now is what the file had");
    check(pread(fd, page, PAGE, 4 * PAGE) == PAGE && all(page, PAGE, 'E'), "as is one that is read");
    map[5 * PAGE] = 'y';
    check(msync(map, 6 * PAGE, MS_SYNC) == 0, "msync works");

    int other = make_pages(path, 1);
    check(pwrite(other, "new", 3, 0) == 3 && map[0] == 'x', "a new file of the same name is another file");
    check(map[5 * PAGE] == 'y' && fstat(other, &status) == 0 && status.st_size == PAGE, "with its own size");
    close(fd);
    check(all(map + 2 * PAGE, PAGE, 'C') && map[5 * PAGE] == 'y', "the mapping outlives the descriptor");
    check(munmap(map, 6 * PAGE) == 0, "munmap of the last of it");
    check(pread(other, page, PAGE, 0) == PAGE && memcmp(page, "newA", 4) == 0, "the new file is untouched");
    return unlink(path) != 0;
}
