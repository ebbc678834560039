/* mlock, mlock2, mlockall: absent pages come in and stay right; what can't be locked is refused as on a local file. */
#include "program.h"

static int here(char *map, size_t pages)
{
    unsigned char core[64];
    int count = 0;
    need(mincore(map, pages * PAGE, core) == 0, "mincore");
    for (size_t i = 0; i < pages; i++)
        count += core[i] & 1;
    return count;
}

static int right(const char *map, size_t pages)
{
    for (size_t i = 0; i < pages; i++)
        if (!all(map + i * PAGE, PAGE, (char)('A' + i % 26)))
            return 0;
    return 1;
}

/* Without privileges all of a process's memory may be too much, and netmem's own counts. */
static int lock_all(int flags)
{
    return mlockall(flags) == 0 || (errno == ENOMEM && geteuid() != 0);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "mlock_brings_in"), *two = path_in(command.dir, "mlock_brings_in.2");
    const int both = PROT_READ | PROT_WRITE;
    char byte;
    if (command.write)
        close(make_pages(path, 64)), close(make_pages(two, 64));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, 70 * PAGE, both, MAP_SHARED);
    check(map[3 * PAGE] == 'D' && mlock(map + PAGE, 20 * PAGE) == 0, "mlock over pages that are here and that are not");
    check(here(map + PAGE, 20) == 20 && right(map, 64), "they are in memory, and right");
    map[2 * PAGE] = '2', map[40 * PAGE] = '4';
    check(pread(fd, &byte, 1, 2 * PAGE) == 1 && byte == '2' && msync(map, 64 * PAGE, MS_SYNC) == 0, "a store into one");
    map[2 * PAGE] = 'C', map[40 * PAGE] = 'O';
    tell("MS_INVALIDATE of locked pages", msync(map, 64 * PAGE, MS_SYNC | MS_INVALIDATE));
    tell("MADV_DONTNEED of locked pages", madvise(map + PAGE, 4 * PAGE, MADV_DONTNEED));
    tell("MADV_REMOVE of locked pages", madvise(map + PAGE, 4 * PAGE, MADV_REMOVE));
    tell("mlock behind the end", mlock(map + 60 * PAGE, 10 * PAGE));
    check(munlock(map, 70 * PAGE) == 0 && right(map, 64), "munlock");
    tell("MS_INVALIDATE after that", msync(map, 64 * PAGE, MS_SYNC | MS_INVALIDATE));
    check(mlock(map + 5, 1) == 0 && munlock(map + 5, 1) == 0, "a byte inside a page");
    tell("mlock2 with an unknown flag", mlock2(map, PAGE, 4));
    check(mlock2(map, 64 * PAGE, MLOCK_ONFAULT) == 0 && right(map, 64) && munlock(map, 64 * PAGE) == 0, "MLOCK_ONFAULT");
    need(munmap(map + 30 * PAGE, PAGE) == 0 && mprotect(map + 10 * PAGE, PAGE, PROT_NONE) == 0, "a hole");
    tell("mlock over a hole", mlock(map + 25 * PAGE, 10 * PAGE));
    tell("mlock without access", mlock(map + 9 * PAGE, 3 * PAGE));
    tell("mlock of nothing", mlock(map, 0));
    need(munlockall() == 0 && munmap(map, 70 * PAGE) == 0, "munmap");

    int fd2 = open_or_fail(two, O_RDWR);
    char *old = map_or_fail(fd2, 64 * PAGE, both, MAP_SHARED), *own = map_or_fail(fd2, 64 * PAGE, both, MAP_PRIVATE);
    check(old[9 * PAGE] == 'J' && own[8 * PAGE] == 'I', "two mappings, a page of each touched");
    tell("mlockall with an unknown flag", mlockall(64));
    check(lock_all(MCL_CURRENT) && right(old, 64) && right(own, 64), "mlockall(MCL_CURRENT)");
    check(here(old, 64) == 64 && munlockall() == 0, "they are in memory");
    check(mlockall(MCL_FUTURE) == 0, "mlockall(MCL_FUTURE)");
    map = map_or_fail(fd2, 64 * PAGE, both, MAP_SHARED);
    own = map_or_fail(fd2, 64 * PAGE, both, MAP_PRIVATE);
    check(right(map, 64) && right(own, 64), "what is mapped then is right");
    map[17 * PAGE] = 'r';
    check(old[17 * PAGE] == 'r' && own[17 * PAGE] == 'R', "a store after that");
    need(ftruncate(fd2, 20 * PAGE) == 0 && ftruncate(fd2, 64 * PAGE) == 0, "ftruncate");
    check(all(map + 30 * PAGE, PAGE, 0) && map[17 * PAGE] == 'r' && touch(map + 40 * PAGE, 1) == 0, "cut and grown");
    check(munlockall() == 0 && map[40 * PAGE] == 'T', "munlockall");
    check(lock_all(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT), "MCL_ONFAULT");
    map = map_or_fail(fd, 64 * PAGE, both, MAP_SHARED);
    check(right(map, 64) && munlockall() == 0, "what is mapped then is right, too");
    return unlink(path) != 0 || unlink(two) != 0;
}
