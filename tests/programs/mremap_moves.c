/* mremap: grows, shrinks, moves, duplicates; the pages go with the mapping, and refusals leave it as it was. */
#include "program.h"

static char *const failed = MAP_FAILED;
static int fd;

static char *fresh(void)
{
    return map_or_fail(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
}

static int shows(const char *map, size_t pages, size_t first)
{
    for (size_t i = 0; i < pages; i++)
        if (map[i * PAGE + 1] != (char)('A' + (first + i) % 26))
            return 0;
    return 1;
}

static void refusals(char *map)
{
    tell("an address inside a page", mremap(map + 1, PAGE, PAGE, MREMAP_MAYMOVE) == failed);
    tell("to no length", mremap(map, PAGE, 0, MREMAP_MAYMOVE) == failed);
    tell("an unknown flag", mremap(map, PAGE, 2 * PAGE, 64) == failed);
    tell("MREMAP_FIXED alone", mremap(map, PAGE, PAGE, MREMAP_FIXED, map + 64 * PAGE) == failed);
    tell("MREMAP_FIXED over itself", mremap(map, 4 * PAGE, 4 * PAGE, MREMAP_FIXED | MREMAP_MAYMOVE, map + PAGE) == failed);
    tell("MREMAP_FIXED into a page", mremap(map, PAGE, PAGE, MREMAP_FIXED | MREMAP_MAYMOVE, map + 20 * PAGE + 1) == failed);
    tell("MREMAP_DONTUNMAP alone", mremap(map, PAGE, PAGE, MREMAP_DONTUNMAP, NULL) == failed);
    tell("MREMAP_DONTUNMAP to another length", mremap(map, PAGE, 2 * PAGE, MREMAP_DONTUNMAP | MREMAP_MAYMOVE, NULL) == failed);
    tell("growth where something is", mremap(map, 2 * PAGE, 3 * PAGE, 0) == failed);
    tell("more than there is", mremap(map, 8 * PAGE, (size_t)1 << 62, MREMAP_MAYMOVE) == failed);
    check(shows(map, 8, 0), "all of it is as it was");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "mremap_moves");
    if (command.write)
        close(make_pages(path, 32));
    if (!command.check)
        return 0;

    fd = open_or_fail(path, O_RDWR);
    char *map = fresh(), *other, *room, byte;
    map[0] = '0', map[3 * PAGE] = '3';
    refusals(map);
    room = mmap(NULL, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(room != failed, "mmap");
    int fixed = MREMAP_FIXED | MREMAP_MAYMOVE;
    check(mremap(map, 8 * PAGE, 8 * PAGE, fixed, room + 8 * PAGE) == room + 8 * PAGE, "moved to a fixed place");
    check(touch(map, 0) == SIGSEGV, "the old place is empty");
    map = room + 8 * PAGE;
    check(map[0] == '0' && map[3 * PAGE] == '3' && shows(map, 8, 0), "the pages are there, those not touched before too");
    map[5 * PAGE] = '5';
    check(pread(fd, &byte, 1, 5 * PAGE) == 1 && byte == '5', "and stores are in the file");
    need(munmap(room + 16 * PAGE, 16 * PAGE) == 0, "munmap");
    check(mremap(map, 8 * PAGE, 16 * PAGE, 0) == map && shows(map, 16, 0), "growth in place, where there is room");
    check(mremap(map, 16 * PAGE, 12 * PAGE, 0) == map && shows(map, 12, 0) && touch(map + 12 * PAGE, 0) == SIGSEGV,
          "shrunk");
    check(mremap(map, 12 * PAGE, 12 * PAGE, 0) == map, "to its own length");
    other = mremap(map + 4 * PAGE, 2 * PAGE, 6 * PAGE, MREMAP_MAYMOVE);
    check(other != failed && shows(other, 6, 4), "the middle, grown, moves away");
    check(touch(map + 4 * PAGE, 0) == SIGSEGV && shows(map, 4, 0) && shows(map + 6 * PAGE, 6, 6), "and leaves a hole");
    tell("across the hole", mremap(map, 8 * PAGE, 9 * PAGE, MREMAP_MAYMOVE) == failed);
    check(shows(map, 4, 0) && shows(map + 6 * PAGE, 6, 6), "which changes nothing");
    check(mremap(map + 6 * PAGE, 6 * PAGE, 2 * PAGE, fixed, map + 20 * PAGE) == map + 20 * PAGE &&
              shows(map + 20 * PAGE, 2, 6) && touch(map + 8 * PAGE, 0) == SIGSEGV, "moved and shrunk at once");
    other = mremap(map, 0, 3 * PAGE, MREMAP_MAYMOVE);
    check(other != failed && shows(other, 3, 0), "an old length of 0 makes a second one");
    other[PAGE] = '1';
    check(map[PAGE] == '1', "of the same pages");
    other = mremap(map, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    check(other != failed && other != map && shows(other, 4, 0) && shows(map, 4, 0), "MREMAP_DONTUNMAP keeps both");
    other[2 * PAGE] = '2', map[3 * PAGE] = 'd';
    check(map[2 * PAGE] == '2' && other[3 * PAGE] == 'd', "which show the same");

    map = fresh();
    need(mprotect(map, 4 * PAGE, PROT_READ) == 0, "mprotect");
    tell("across two protections", mremap(map, 8 * PAGE, 16 * PAGE, MREMAP_MAYMOVE) == failed);
    need(mprotect(map, 4 * PAGE, PROT_READ | PROT_WRITE) == 0, "mprotect");
    map = mremap(map, 8 * PAGE, 16 * PAGE, MREMAP_MAYMOVE);
    check(map != failed && shows(map, 16, 0), "alike again they are one");
    char *own = map_or_fail(fd, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    own[PAGE] = 'p';
    tell("a second one of a private mapping", mremap(own, 0, PAGE, MREMAP_MAYMOVE) == failed);
    other = mremap(own, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    check(other != failed && other[PAGE] == 'p' && own[PAGE] == '1', "private copies move, and the file shows behind them");
    other = mremap(other, 4 * PAGE, 32 * PAGE, MREMAP_MAYMOVE);
    check(other != failed && other[PAGE] == 'p' && shows(other, 32, 0), "a private one, grown");
    return unlink(path) != 0;
}
