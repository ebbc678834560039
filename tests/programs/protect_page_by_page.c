/* A page after the other is protected and let go again, as a collector does it: no limit is met, and every store is noted. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "protect_page_by_page");
    const size_t pages = 2048;
    const int both = PROT_READ | PROT_WRITE;
    if (command.write)
        close(make_pages(path, pages));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, pages * PAGE, both, MAP_SHARED);
    int failed = 0;
    for (size_t i = 0; i < pages; i++) {
        failed += mprotect(map + i * PAGE, PAGE, PROT_READ) != 0;
        failed += i % 8 == 0 && touch(map + i * PAGE, 1) != SIGSEGV;
        failed += mprotect(map + i * PAGE, PAGE, both) != 0;
        map[i * PAGE + 1] = (char)i;
    }
    check(failed == 0, "two thousand pages, each protected and let go");
    for (size_t i = 0; i < pages; i += 2)
        failed += mprotect(map + i * PAGE, PAGE, PROT_NONE) != 0;
    check(failed == 0 && touch(map + 2 * PAGE, 0) == SIGSEGV && map[3 * PAGE + 1] == 3, "every other page closed");
    check(mprotect(map, pages * PAGE, both) == 0, "and all opened");
    char *moved = mremap(map, pages * PAGE, (pages + 1) * PAGE, MREMAP_MAYMOVE);
    check(moved != MAP_FAILED, "for mremap it is one mapping again");
    for (size_t i = 0; i < pages; i++)
        failed += moved[i * PAGE] != (char)('A' + i % 26) || moved[i * PAGE + 1] != (char)i;
    check(failed == 0 && msync(moved, pages * PAGE, MS_SYNC) == 0, "with every store in it");

    for (int mapping = 0; mapping < 70 && failed == 0; mapping++) {
        map = map_or_fail(fd, 1000 * PAGE, both, MAP_SHARED);
        for (size_t i = 0; i < 1000; i++) {
            failed += mlock2(map + i * PAGE, PAGE, MLOCK_ONFAULT) != 0;
            failed += munlock(map + i * PAGE, PAGE) != 0;
        }
    }
    check(failed == 0, "seventy thousand pages, each locked and let go");
    moved = mremap(map, 1000 * PAGE, 1001 * PAGE, MREMAP_MAYMOVE);
    check(moved != MAP_FAILED && moved[PAGE] == 'B', "of mappings that are whole again");
    return unlink(path) != 0;
}
