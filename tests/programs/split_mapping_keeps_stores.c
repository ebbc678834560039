/* A mapping that advice and protection have split, for the kernel, into several: stores on all sides of the cuts are kept. */
#include "program.h"

enum { PAGES = 32 };

static void store_all(char *map, char letter)
{
    for (int page = 0; page < PAGES; page++)
        map[page * PAGE + letter % 16] = letter;
}

static int all_have(const char *path, char letter)
{
    char page[PAGE];
    int fd = open_or_fail(path, O_RDONLY), good = 1;
    for (int i = 0; i < PAGES; i++)
        good = good && pread(fd, page, PAGE, i * PAGE) == PAGE && page[letter % 16] == letter;
    close(fd);
    return good;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "split_mapping");
    if (command.write) {
        close(make_pages(path, PAGES));
        pid_t writer = fork();
        if (writer == 0) { /* whoever is killed has kept what was synced before, and nothing else */
            int fd = open_or_fail(path, O_RDWR);
            char *map = map_or_fail(fd, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
            store_all(map, 'a');
            check(madvise(map + 4 * PAGE, 4 * PAGE, MADV_SEQUENTIAL) == 0, "advice for a part of a mapping");
            check(madvise(map + 12 * PAGE, PAGE, MADV_RANDOM) == 0, "and other advice for a page");
            check(madvise(map + 20 * PAGE, 2 * PAGE, MADV_DONTDUMP) == 0, "and for two");
            check(mprotect(map + 26 * PAGE, PAGE, PROT_READ) == 0, "a page is made read-only");
            check(msync(map, PAGES * PAGE, MS_SYNC) == 0, "a sync");
            check(mprotect(map + 26 * PAGE, PAGE, PROT_READ | PROT_WRITE) == 0, "and writable again");
            store_all(map, 'b');
            check(msync(map, PAGES * PAGE, MS_SYNC) == 0, "stores after the sync, and another sync");
            pid_t child = fork();
            if (child == 0) {
                store_all(map, 'c');
                need(msync(map, PAGES * PAGE, MS_SYNC) == 0, "a sync of a child");
                store_all(map, 'd');
                _exit(msync(map, PAGES * PAGE, MS_SYNC) != 0);
            }
            check(wait_for(child) == 0, "a child stores and syncs twice");
            store_all(map, 'e');
            check(msync(map, PAGES * PAGE, MS_SYNC) == 0, "stores of the parent after its child's, and a sync");
            raise(SIGKILL);
        }
        check(wait_for(writer) == -SIGKILL, "then it is killed");
    }
    if (!command.check)
        return 0;
    check(all_have(path, 'a'), "the stores before the cuts are there");
    check(all_have(path, 'b'), "those between two syncs");
    check(all_have(path, 'c') && all_have(path, 'd'), "those of the child");
    check(all_have(path, 'e'), "and the last ones");
    return unlink(path) != 0;
}
