/* Every advice of madvise, on shared and private mappings: its answer, and that the file stays what it was. */
#include "program.h"

static const struct {
    const char *name;
    int value;
} advice[] = {
    {"NORMAL", 0}, {"RANDOM", 1}, {"SEQUENTIAL", 2}, {"WILLNEED", 3}, {"DONTNEED", 4}, {"FREE", 8},
    {"REMOVE", 9}, {"DONTFORK", 10}, {"DOFORK", 11}, {"WIPEONFORK", 18}, {"KEEPONFORK", 19}, {"COLD", 20},
    {"DONTDUMP", 16}, {"DODUMP", 17}, {"PAGEOUT", 21}, {"POPULATE_READ", 22}, {"POPULATE_WRITE", 23},
    {"MERGEABLE", 12}, {"UNMERGEABLE", 13}, {"HUGEPAGE", 14}, {"NOHUGEPAGE", 15}, {"number 7", 7},
    {"number 99", 99}, {"number -1", -1},
};

static int right(const char *map, size_t pages)
{
    for (size_t i = 0; i < pages; i++)
        if (!all(map + i * PAGE, PAGE, (char)('A' + i)))
            return 0;
    return 1;
}

static void advise(const char *what, char *map, size_t length, int number)
{
    char line[100];
    snprintf(line, sizeof line, "%s, %s", what, advice[number].name);
    tell(line, madvise(map, length, advice[number].value));
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "madvise_every_advice");
    const int both = PROT_READ | PROT_WRITE;
    if (command.write)
        close(make_pages(path, 16));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR), reader = open_or_fail(path, O_RDONLY);
    for (unsigned i = 0; i < sizeof advice / sizeof *advice; i++) {
        char *shared = map_or_fail(fd, 20 * PAGE, both, MAP_SHARED), *own = map_or_fail(fd, 20 * PAGE, both, MAP_PRIVATE);
        char *look = map_or_fail(reader, 20 * PAGE, PROT_READ, MAP_SHARED), page[PAGE];
        advise("private", own, 16 * PAGE, i);
        advise("to be read", look, 16 * PAGE, i);
        need(right(own, 16) && right(look, 16), "the file's pages");
        if (advice[i].value != MADV_REMOVE)
            advise("shared", shared, 16 * PAGE, i);
        else
            check(madvise(shared + 2 * PAGE, PAGE, MADV_REMOVE) == 0 && all(look + 2 * PAGE, PAGE, 0) &&
                      pread(fd, page, PAGE, 2 * PAGE) == PAGE && all(page, PAGE, 0), "REMOVE makes zeros");
        memset(shared + 2 * PAGE, 'C', PAGE);
        need(right(shared, 16), "the file's pages in the shared one");
        advise("an address inside a page", shared + 1, PAGE, i);
        advise("no length", shared, 0, i);
        advise("behind the end", shared + 17 * PAGE, PAGE, i);
        need(munmap(shared + 18 * PAGE, PAGE) == 0 && mprotect(own + 18 * PAGE, PAGE, PROT_NONE) == 0, "munmap");
        advise("a hole in between", shared + 17 * PAGE, 3 * PAGE, i);
        advise("without access", own + 18 * PAGE, PAGE, i);
        need(munmap(shared, 20 * PAGE) == 0 && munmap(own, 20 * PAGE) == 0 && munmap(look, 20 * PAGE) == 0, "munmap");
    }
    return unlink(path) != 0;
}
