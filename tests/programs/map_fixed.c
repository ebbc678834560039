/* MAP_FIXED over mappings of files and over anonymous memory, each way; one that is refused changes nothing. */
#include "program.h"

static char *fixed(char *at, size_t pages, int flags, int fd, size_t page)
{
    char *map = mmap(at, pages * PAGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, (off_t)(page * PAGE));
    return map == at ? map : NULL;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "map_fixed"), *other = path_in(command.dir, "map_fixed.other");
    if (command.write)
        close(make_pages(path, 16)), close(make_pages(other, 16));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR), fd2 = open_or_fail(other, O_RDWR), reader = open_or_fail(path, O_RDONLY);
    char *map = map_or_fail(fd, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    map[4 * PAGE] = '4';
    check(fixed(map + 4 * PAGE, 4, MAP_SHARED, fd2, 0) && all(map + 4 * PAGE, PAGE, 'A') &&
              all(map + 7 * PAGE, PAGE, 'D'), "another file over the middle");
    check(all(map + 3 * PAGE, PAGE, 'D') && all(map + 8 * PAGE, PAGE, 'I'), "both sides stay");
    map[5 * PAGE] = '5';
    check(fixed(map + 5 * PAGE, 2, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) && all(map + 5 * PAGE, 2 * PAGE, 0),
          "anonymous memory over that");
    check(fixed(map + 6 * PAGE, 4, MAP_SHARED, fd, 12) && map[6 * PAGE] == 'M' && map[9 * PAGE] == 'P',
          "the file again, over three kinds of mapping");
    check(fixed(map + 8 * PAGE, 1, MAP_PRIVATE, fd, 0) && map[8 * PAGE] == 'A', "privately over itself");
    char byte[2];
    check(pread(fd, byte, 1, 4 * PAGE) == 1 && byte[0] == '4' && pread(fd2, byte, 1, PAGE) == 1 && byte[0] == '5',
          "what was stored before is in the files");
    check(map[0] == 'A' && map[4 * PAGE] == 'A' && map[5 * PAGE] == 0 && map[7 * PAGE] == 'N' &&
              map[10 * PAGE] == 'K' && map[15 * PAGE] == 'P', "each piece shows what was mapped there");

    map[PAGE] = 'x';
    tell("refused: no right to write", !fixed(map, 4, MAP_SHARED, reader, 0));
    tell("refused: a directory", !fixed(map, 4, MAP_SHARED, open_or_fail(command.dir, O_RDONLY), 0));
    tell("refused: MAP_SYNC", !fixed(map, 4, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0));
    tell("refused: MAP_SYNC on another file", !fixed(map, 4, MAP_SHARED_VALIDATE | MAP_SYNC, fd2, 0));
    tell("refused: too far in the file", !fixed(map, 4, MAP_SHARED, fd, SIZE_MAX / PAGE / 2));
    check(map[0] == 'A' && map[PAGE] == 'x' && map[2 * PAGE] == 'C', "what was there can be loaded");
    map[2 * PAGE] = 'y';
    check(pread(fd, byte, 1, 2 * PAGE) == 1 && byte[0] == 'y', "and stored into");

    int flags = MAP_SHARED | MAP_FIXED_NOREPLACE;
    tell("MAP_FIXED_NOREPLACE over it", mmap(map + 15 * PAGE, PAGE, PROT_READ, flags, fd, 0) == MAP_FAILED);
    need(munmap(map + 15 * PAGE, PAGE) == 0, "munmap");
    check(mmap(map + 15 * PAGE, PAGE, PROT_READ, flags, fd, 0) == map + 15 * PAGE && map[15 * PAGE] == 'A',
          "and where nothing is");
    char *hint = mmap(map, PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
    check(hint != MAP_FAILED && hint != map && hint[0] == 'x', "a hint that is taken gives another place");
    need(munmap(map + 12 * PAGE, PAGE) == 0, "munmap");
    hint = mmap(map + 12 * PAGE, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    check(hint == map + 12 * PAGE && hint[0] == 'A', "a hint that is free is followed");
    return unlink(path) != 0 || unlink(other) != 0;
}
