/* A shared mapping of a read-only descriptor can be read, and made writable by nothing. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "readonly_fd_shared_map");
    if (command.write)
        close(make_pages(path, 4));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDONLY);
    char *map = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    check(map != MAP_FAILED && all(map + PAGE, PAGE, 'B'), "PROT_READ works");
    check(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES,
          "PROT_WRITE is EACCES");
    check(mprotect(map, 4 * PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES,
          "mprotect to PROT_WRITE is EACCES");
    check(mprotect(map + PAGE, PAGE, PROT_WRITE) == -1 && errno == EACCES, "in the middle of it too");
    check(touch(map + 2 * PAGE, 1) == SIGSEGV, "a store is SIGSEGV");
    check(touch(map + PAGE, 1) == SIGSEGV, "to a page that was loaded too");
    check(all(map + 2 * PAGE, PAGE, 'C') && all(map + 3 * PAGE, PAGE, 'D'), "and the bytes are kept");
    check(write(fd, "x", 1) == -1 && errno == EBADF, "write is EBADF");
    check(ftruncate(fd, 0) == -1 && errno == EINVAL, "ftruncate is EINVAL");

    int writer = open_or_fail(path, O_RDWR);
    check(pwrite(writer, "new", 3, 3 * PAGE) == 3 && memcmp(map + 3 * PAGE, "newD", 4) == 0,
          "what others write shows in it");
    check(mprotect(map, PAGE, PROT_NONE) == 0 && mprotect(map, PAGE, PROT_READ) == 0 && map[0] == 'A',
          "PROT_NONE and back to PROT_READ is allowed");
    return unlink(path) != 0;
}
