/* Two thousand overlapping mappings of a file that is cut, grown, punched and written: all of them show the file, always. */
#include "program.h"

enum { MAPS = 2000, PAGES = 64, ROUNDS = 60 };

static unsigned seed = 7;

static unsigned pick(unsigned below)
{
    seed = seed * 1103515245 + 12345;
    return (seed >> 8) % below;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "truncate_under_mappings");
    static char *map[MAPS], model[PAGES * PAGE], block[3 * PAGE];
    static unsigned first[MAPS], pages[MAPS];
    if (command.write)
        close(make_pages(path, PAGES));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    size_t size = PAGES * PAGE, wrong = 0, signals = 0;
    for (int i = 0; i < PAGES; i++)
        memset(model + i * PAGE, 'A' + i % 26, PAGE);
    for (int i = 0; i < MAPS; i++) {
        first[i] = pick(PAGES), pages[i] = 1 + pick(PAGES - first[i]);
        int flags = i % 8 ? MAP_SHARED : MAP_PRIVATE, prot = i % 8 ? PROT_READ | PROT_WRITE : PROT_READ;
        map[i] = mmap(NULL, pages[i] * PAGE, prot, flags, fd, (off_t)first[i] * PAGE);
        need(map[i] != MAP_FAILED, "mmap");
    }
    for (int round = 0; round < ROUNDS; round++) {
        size_t at = pick(PAGES * PAGE - sizeof block), to = pick(PAGES * PAGE), hole = pick(PAGES - 2) * PAGE;
        unsigned storer = pick(MAPS) | 1;
        if (round % 3 == 0) {
            need(ftruncate(fd, (off_t)to) == 0, "ftruncate");
            if (to < size)
                memset(model + to, 0, sizeof model - to);
            size = to;
        } else if (round % 3 == 1) {
            memset(block, 'a' + round % 26, sizeof block);
            need(pwrite(fd, block, sizeof block, (off_t)at) == sizeof block, "pwrite");
            memcpy(model + at, block, sizeof block);
            size = at + sizeof block > size ? at + sizeof block : size;
        } else if (hole + 2 * PAGE <= size) {
            need(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)hole, 2 * PAGE) == 0, "fallocate");
            memset(model + hole, 0, 2 * PAGE);
        }
        size_t byte = (size_t)first[storer] * PAGE + pick(pages[storer] * PAGE);
        if (byte < size)
            map[storer][byte - (size_t)first[storer] * PAGE] = model[byte] = '!';
        for (int i = 0; i < MAPS; i++) {
            size_t where = (size_t)first[i] * PAGE + pick(pages[i] * PAGE), page = where / PAGE * PAGE;
            char *load = map[i] + (where - (size_t)first[i] * PAGE);
            if (page < size)
                wrong += *(volatile char *)load != (where < size ? model[where] : 0);
            else if (i % 50 == 0)
                signals += touch(load, 0) != SIGBUS;
        }
    }
    check(wrong == 0, "every load is what the file holds");
    check(signals == 0, "behind its end it is SIGBUS");
    for (int i = 0; i < MAPS; i++)
        need(munmap(map[i], pages[i] * PAGE) == 0, "munmap");
    for (size_t i = 0; i + PAGE <= size; i += PAGE)
        wrong += pread(fd, block, PAGE, (off_t)i) != PAGE || memcmp(block, model + i, PAGE) != 0;
    check(wrong == 0, "and so is every page in the end");
    return unlink(path) != 0;
}
