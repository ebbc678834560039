/*
 * Bytes stored beyond the end of the file, in its last page, are no part of it: they are not read, and don't
 * appear when another process shrinks and grows it. A third phase, "strict", asks for what POSIX says and
 * ext4 does and the kernel's tmpfs does not: after "write", growing alone shows zeros.
 */
#include "program.h"

int main(int argc, char **argv)
{
    int strict = argc == 3 && strcmp(argv[2], "strict") == 0;
    struct command command = command_line(strict ? 2 : argc, argv);
    const char *path = path_in(command.dir, "tail_zero");
    char page[PAGE];
    struct stat status;
    if (command.write && !strict) {
        unlink(path);
        int fd = open_or_fail(path, O_RDWR | O_CREAT);
        need(write(fd, "hello", 5) == 5 && ftruncate(fd, PAGE + 200) == 0, "write and ftruncate");
        char *map = map_or_fail(fd, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
        check(all(map + PAGE + 200, PAGE - 200, 0), "the last page beyond the end is zeros");
        map[PAGE + 199] = 'l';
        memset(map + PAGE + 200, 'x', 100);
        check(pread(fd, page, PAGE, PAGE) == 200 && page[199] == 'l', "read ends at the end");
        check(msync(map, 2 * PAGE, MS_SYNC) == 0 && fstat(fd, &status) == 0 && status.st_size == PAGE + 200,
              "stores beyond it don't move it");
        munmap(map, 2 * PAGE);
        close(fd);
    }
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    check(fstat(fd, &status) == 0 && status.st_size == PAGE + 200, "the next process finds the same end");
    memset(page, '?', PAGE);
    check(pread(fd, page, PAGE, PAGE) == 200 && page[199] == 'l' && page[200] == '?', "and reads up to it");
    need(strict || ftruncate(fd, PAGE + 199) == 0, "ftruncate");
    check(ftruncate(fd, 2 * PAGE) == 0 && pread(fd, page, PAGE, PAGE) == PAGE, "the file grows");
    check(all(page + 200, PAGE - 200, 0), "what was stored beyond the end is not in it");
    char *map = map_or_fail(fd, 2 * PAGE, PROT_READ, MAP_SHARED);
    check(all(map + PAGE + 200, PAGE - 200, 0), "nor in a mapping");
    return unlink(path) != 0;
}
