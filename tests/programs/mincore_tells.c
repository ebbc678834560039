/* mincore: what was touched is in memory, holes in the address space are ENOMEM, its answer may lie in the file's own mapping. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "mincore_tells");
    unsigned char core[16];
    if (command.write)
        close(make_pages(path, 16));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    char *own = map_or_fail(fd, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    check(map[2 * PAGE] == 'C' && own[5 * PAGE] == 'F', "two pages are touched");
    own[6 * PAGE] = 'f';
    memset(core, 0, sizeof core);
    check(mincore(map, 16 * PAGE, core) == 0 && core[2] == 1 && core[5] == 1, "mincore says so");
    check(mincore(own, 16 * PAGE, core) == 0 && core[2] == 1 && core[5] == 1 && core[6] == 1, "of the private one, too");
    check(madvise(map, 16 * PAGE, MADV_WILLNEED) == 0 && mincore(map, 16 * PAGE, core) == 0 && core[15] == 1,
          "MADV_WILLNEED brings in");
    need(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8 * PAGE, PAGE) == 0, "fallocate");
    check(mincore(map, 16 * PAGE, core) == 0 && core[7] == 1 && core[8] == 0 && core[9] == 1, "a hole in the file is not");
    need(ftruncate(fd, 12 * PAGE) == 0, "ftruncate");
    check(mincore(map, 16 * PAGE, core) == 0 && core[11] == 1 && core[12] == 0, "nor is what lies behind its end");
    tell("an address inside a page", mincore(map + 1, PAGE, core));
    check(mincore(map, 1, core) == 0 && mincore(map, 0, core) == 0, "part of a page, and nothing");
    tell("no room for the answer", mincore(map, PAGE, NULL));
    need(munmap(map + 4 * PAGE, PAGE) == 0, "munmap");
    tell("a hole between", mincore(map, 8 * PAGE, core));
    need(munmap(own, 16 * PAGE) == 0, "munmap");
    own = map_or_fail(fd, 12 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    check(mincore(own, 12 * PAGE, (unsigned char *)own + 10 * PAGE) == 0 && own[10 * PAGE + 2] == 1 &&
              own[10 * PAGE + 12] == 'K', "an answer into the mapping itself");
    check(map[10 * PAGE] == own[10 * PAGE], "which others see");
    return unlink(path) != 0;
}
