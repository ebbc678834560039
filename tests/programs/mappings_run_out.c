/* A process that has as many mappings as the kernel gives it: what is refused changes nothing, and nothing is lost. */
#include "program.h"

enum { PAGES = 64, FILLERS_MAX = 1 << 20 };

static const int both = PROT_READ | PROT_WRITE;

/* Takes all mappings but a few. Neighbours differ, so that the kernel makes no two of them one. */
static void take_all_but(int spare)
{
    char *last[16] = {0};
    int made = 0;
    for (; made < FILLERS_MAX; made++) {
        char *page = mmap(NULL, PAGE, made % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
            break;
        last[made % 16] = page;
    }
    need(errno == ENOMEM, "as many mappings as there are");
    for (int i = 0; i < spare; i++)
        need(munmap(last[(made - 2 - 2 * i) % 16], PAGE) == 0, "munmap");
}

static int every_store_works(char *map, int from, int to, char value)
{
    for (int i = from; i < to; i++) {
        if (touch(map + i * PAGE + 1, 1) != 0)
            return 0;
        map[i * PAGE + 2] = value;
    }
    return 1;
}

static int holds(const char *map, int from, int to, char value)
{
    for (int i = from; i < to; i++)
        if (map[i * PAGE + 2] != value)
            return 0;
    return 1;
}

/* Some of what follows is refused, with ENOMEM; how much depends on how many mappings there are. */
static int changes(char *map, int fd, int sharing)
{
    int refused = mprotect(map + 20 * PAGE, 8 * PAGE, PROT_NONE);
    if (refused ? errno != ENOMEM || !every_store_works(map, 0, PAGES, 'a') : touch(map + 21 * PAGE, 1) != SIGSEGV)
        return 1;
    if (msync(map, PAGES * PAGE, MS_SYNC) != 0 || (refused && !every_store_works(map, 20, 28, 'a')))
        return 2;
    if (mprotect(map, PAGES * PAGE, PROT_READ) != 0 || touch(map + 3 * PAGE, 1) != SIGSEGV)
        return 3;
    if (mprotect(map, PAGES * PAGE, both) != 0 || !every_store_works(map, 0, PAGES, 'b'))
        return 4;
    refused = mmap(map + 8 * PAGE, PAGE, both, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED;
    if (refused ? errno != ENOMEM || !holds(map, 8, 9, 'b') : map[8 * PAGE + 2] != 0)
        return 5;
    int gone = munmap(map + 30 * PAGE, 2 * PAGE) == 0;
    if (gone ? touch(map + 30 * PAGE, 0) != SIGSEGV : errno != ENOMEM || !holds(map, 30, 32, 'b'))
        return 6;
    if (mremap(map + 40 * PAGE, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno != ENOMEM && errno != EFAULT)
        return 7;
    if (!holds(map, 9, 30, 'b') || !holds(map, 32, 40, 'b') || !holds(map, 44, PAGES, 'b'))
        return 8;
    if (msync(map, 8 * PAGE, MS_SYNC) != 0)
        return 9;
    char byte;
    for (int i = 0; i < PAGES && sharing == MAP_SHARED; i++)
        if (pread(fd, &byte, 1, i * PAGE + 2) != 1 || byte != 'b')
            return 10;
    return 0;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "mappings_run_out");
    if (command.write)
        close(make_pages(path, PAGES));
    if (!command.check)
        return 0;

    const int spares[] = {0, 1, 2, 3, 4, 8};
    for (int i = 0; i < 12; i++) {
        int sharing = i % 2 ? MAP_PRIVATE : MAP_SHARED;
        pid_t child = fork();
        if (child == 0) {
            int fd = open_or_fail(path, O_RDWR);
            char *map = map_or_fail(fd, PAGES * PAGE, both, sharing);
            for (int page = 0; page < PAGES; page += 4)
                map[page * PAGE + 1] = map[(page + 1) * PAGE + 1];
            /* An emulated machine takes its time. */
            alarm(100);
            take_all_but(spares[i / 2]);
            _exit(changes(map, fd, sharing));
        }
        int status = wait_for(child);
        if (status != 0)
            dprintf(STDERR_FILENO, "%d spare, %s: step %d\n", spares[i / 2], i % 2 ? "private" : "shared", status);
        check(status == 0, i % 2 ? "a private mapping, with few to spare" : "a shared mapping, with few to spare");
    }
    return unlink(path) != 0;
}
