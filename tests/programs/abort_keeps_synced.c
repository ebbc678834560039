/* A process that aborts: what it had synced is there, whole; what it stored later may or may not be. */
#include "program.h"
#include <sys/resource.h>

static void store_and_abort(const char *path)
{
    const struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    memset(map + PAGE, '1', 4 * PAGE);
    check(msync(map, 8 * PAGE, MS_SYNC) == 0, "four pages are synced");
    memset(map + PAGE, '2', 4 * PAGE);
    abort();
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "abort_keeps_synced");
    if (command.write) {
        close(make_pages(path, 8));
        pid_t child = fork();
        if (child == 0)
            store_and_abort(path);
        check(wait_for(child) == -SIGABRT, "and stored to again, and the process aborts");
    }
    if (!command.check)
        return 0;

    static char pages[4 * PAGE];
    char page[PAGE];
    int fd = open_or_fail(path, O_RDONLY);
    check(pread(fd, pages, sizeof pages, PAGE) == sizeof pages, "the next process reads them");
    check(all(pages, sizeof pages, '1') || all(pages, sizeof pages, '2'), "as synced, or as stored later");
    check(pread(fd, page, PAGE, 0) == PAGE && all(page, PAGE, 'A'), "the page before them is untouched");
    check(pread(fd, page, PAGE, 5 * PAGE) == PAGE && all(page, PAGE, 'F'), "and the one after");
    return unlink(path) != 0;
}
