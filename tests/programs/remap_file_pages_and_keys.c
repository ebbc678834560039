/* remap_file_pages, which shows other pages of the file in place; pkey_mprotect, with and without a key. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "remap_file_pages_and_keys");
    const int both = PROT_READ | PROT_WRITE;
    char byte;
    if (command.write)
        close(make_pages(path, 16));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, 8 * PAGE, both, MAP_SHARED), *own = map_or_fail(fd, PAGE, both, MAP_PRIVATE);
    map[2 * PAGE] = '2';
    check(remap_file_pages(map + 2 * PAGE, 2 * PAGE, 0, 12, 0) == 0, "remap_file_pages");
    check(map[2 * PAGE] == 'M' && map[3 * PAGE] == 'N' && map[PAGE] == 'B' && map[4 * PAGE] == 'E', "other pages, in place");
    map[3 * PAGE] = 'n';
    check(pread(fd, &byte, 1, 13 * PAGE) == 1 && byte == 'n', "a store goes to the page that is shown");
    check(pread(fd, &byte, 1, 2 * PAGE) == 1 && byte == '2', "what was stored before is in the file");
    check(remap_file_pages(map + 2 * PAGE, 2 * PAGE, 0, 2, 0) == 0 && map[2 * PAGE] == '2', "and back");
    tell("of a private mapping", remap_file_pages(own, PAGE, 0, 1, 0));
    tell("with a protection", remap_file_pages(map, PAGE, PROT_READ, 1, 0));
    tell("of no length", remap_file_pages(map, 0, 0, 1, 0));
    tell("behind the end", remap_file_pages(map + 7 * PAGE, PAGE, 0, 40, 0));
    check(touch(map + 7 * PAGE, 0) == SIGBUS, "which is SIGBUS");
    need(munmap(map + 6 * PAGE, PAGE) == 0, "munmap");
    tell("over a hole", remap_file_pages(map + 5 * PAGE, 3 * PAGE, 0, 0, 0));
    check(map[5 * PAGE] == 'F', "which changes nothing");

    check(pkey_mprotect(map, 2 * PAGE, PROT_READ, -1) == 0 && touch(map, 1) == SIGSEGV && map[PAGE] == 'B',
          "pkey_mprotect without a key is mprotect");
    tell("with a key that nobody made", pkey_mprotect(map, 2 * PAGE, both, 7));
    check(touch(map, 1) == SIGSEGV, "which changes nothing");
    int key = pkey_alloc(0, PKEY_DISABLE_WRITE);
    if (key > 0) {
        need(pkey_mprotect(map, 2 * PAGE, both, key) == 0, "pkey_mprotect");
        need(map[0] == 'A' && touch(map, 1) == SIGSEGV && pkey_set(key, 0) == 0 && touch(map, 1) == 0, "a key");
        need(pkey_mprotect(map, 2 * PAGE, PROT_READ, 0) == 0 && pkey_free(key) == 0, "pkey_free");
    }
    check(mprotect(map, 2 * PAGE, both) == 0 && touch(map, 1) == 0, "mprotect lets stores in again");
    tell("mprotect with unknown bits", mprotect(map, PAGE, PROT_READ | 0x100));
    tell("mprotect with PROT_GROWSDOWN", mprotect(map, PAGE, PROT_READ | PROT_GROWSDOWN));
    tell("mprotect with PROT_SEM", mprotect(map, PAGE, both | 8));
    tell("mprotect inside a page", mprotect(map + 1, PAGE, PROT_READ));
    tell("mprotect of no length", mprotect(map, 0, PROT_NONE));
    tell("mprotect over a hole", mprotect(map + 5 * PAGE, 3 * PAGE, PROT_READ));
    check(touch(map + 5 * PAGE, 1) == SIGSEGV, "what lies before the hole is protected");
    return unlink(path) != 0;
}
