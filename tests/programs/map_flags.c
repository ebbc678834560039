/* The flags of mmap that bring pages in or lock them, a part of a file, pages behind its end. */
#include "program.h"

static void try(const char *what, int fd, int prot, int flags)
{
    unsigned char core[8] = {0};
    char *map = mmap(NULL, 8 * PAGE, prot, flags, fd, 0);
    check(map != MAP_FAILED, what);
    need(mincore(map, 8 * PAGE, core) == 0, "mincore");
    int here = 0;
    for (int i = 0; i < 8; i++)
        here += core[i] & 1;
    if (flags & (MAP_POPULATE | MAP_LOCKED))
        check(here == 8, "its pages are in memory");
    for (int i = 0; i < 8; i++)
        need(all(map + i * PAGE, PAGE, (char)('A' + i)), "a page");
    if (prot & PROT_WRITE) {
        /* What is private and was brought in to be written does not change with the file. */
        char *shared = map_or_fail(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
        shared[7 * PAGE] = 'h';
        dprintf(STDOUT_FILENO, "ok: then shows %c\n", map[7 * PAGE]);
        shared[7 * PAGE] = 'H';
        munmap(shared, 8 * PAGE);
    }
    munmap(map, 8 * PAGE);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "map_flags");
    const int both = PROT_READ | PROT_WRITE;
    if (command.write)
        close(make_pages(path, 8));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR), reader = open_or_fail(path, O_RDONLY);
    try("MAP_NORESERVE", fd, both, MAP_SHARED | MAP_NORESERVE);
    try("MAP_POPULATE", fd, both, MAP_SHARED | MAP_POPULATE);
    try("MAP_POPULATE of a read-only one", reader, PROT_READ, MAP_SHARED | MAP_POPULATE);
    try("MAP_POPULATE, privately", fd, both, MAP_PRIVATE | MAP_POPULATE);
    try("MAP_POPULATE, privately, to be read", reader, PROT_READ, MAP_PRIVATE | MAP_POPULATE);
    try("MAP_LOCKED", fd, both, MAP_SHARED | MAP_LOCKED);
    try("MAP_LOCKED of a read-only one", reader, PROT_READ, MAP_SHARED | MAP_LOCKED);
    try("MAP_LOCKED, privately", fd, both, MAP_PRIVATE | MAP_LOCKED);
    try("MAP_POPULATE with MAP_NONBLOCK", fd, PROT_READ, MAP_SHARED | MAP_NONBLOCK);
    try("all of them", fd, both, MAP_SHARED | MAP_NORESERVE | MAP_POPULATE | MAP_LOCKED);

    char *part = mmap(NULL, 2 * PAGE, both, MAP_SHARED, fd, 3 * PAGE);
    check(part != MAP_FAILED && part[0] == 'D' && part[2 * PAGE - 1] == 'E', "a part of the file");
    char *odd = mmap(NULL, PAGE + 1, both, MAP_SHARED, fd, 3 * PAGE);
    check(odd != MAP_FAILED && odd[2 * PAGE - 1] == 'E', "a length in a page is all of the page");
    char *past = mmap(NULL, 4 * PAGE, both, MAP_SHARED | MAP_POPULATE, fd, 6 * PAGE);
    check(past != MAP_FAILED && past[PAGE] == 'H' && touch(past + 2 * PAGE, 0) == SIGBUS, "a part behind the end");
    char *behind = mmap(NULL, PAGE, both, MAP_SHARED | MAP_LOCKED, fd, 100 * PAGE);
    check(behind != MAP_FAILED && touch(behind, 1) == SIGBUS, "all of it behind the end");
    close(fd);
    close(reader);
    check(part[PAGE] == 'E' && past[0] == 'G', "without the descriptors");
    part[PAGE] = 'e';
    need(unlink(path) == 0, "unlink");
    check(odd[PAGE] == 'e' && past[PAGE] == 'H' && msync(part, 2 * PAGE, MS_SYNC) == 0, "and without the name");
    return 0;
}
