/* A private mapping shows shared stores until its page is written; its own stores are nobody else's. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "map_private_isolated");
    char page[PAGE];
    if (command.write) {
        int fd = make_pages(path, 6);
        char *private = map_or_fail(fd, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
        char *shared = map_or_fail(fd, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
        check(all(private + PAGE, PAGE, 'B'), "a private mapping shows the file");
        shared[PAGE] = 's';
        check(private[PAGE] == 's', "and a shared store to a page it has loaded");
        check(pwrite(fd, "w", 1, 2 * PAGE) == 1 && private[2 * PAGE] == 'w', "and what was written");
        private[PAGE + 1] = 'p';
        check(shared[PAGE + 1] == 'B', "a private store is not seen in the shared mapping");
        check(pread(fd, page, 2, PAGE) == 2 && memcmp(page, "sB", 2) == 0, "nor read from the file");
        shared[PAGE + 2] = 's';
        check(private[PAGE + 2] == 'B' && private[PAGE] == 's', "once written, the page stays as it is");
        private[3 * PAGE] = 'p';
        check(private[3 * PAGE + 1] == 'D' && shared[3 * PAGE] == 'D', "a store to a page never loaded");
        check(msync(private, 6 * PAGE, MS_SYNC) == 0 && close(fd) == 0, "msync of it writes nothing back");
    }
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDONLY);
    check(pread(fd, page, PAGE, PAGE) == PAGE && memcmp(page, "sBsB", 4) == 0,
          "the next process reads shared stores");
    check(pread(fd, page, PAGE, 3 * PAGE) == PAGE && all(page, PAGE, 'D'), "and no private ones");
    char *private = map_or_fail(fd, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    private[4 * PAGE + 9] = 'p';
    check(all(private + 4 * PAGE, 9, 'E') && private[4 * PAGE + 9] == 'p'
              && all(private + 5 * PAGE, PAGE, 'F'),
          "a read-only descriptor is enough to store privately");
    check(pread(fd, page, PAGE, 4 * PAGE) == PAGE && all(page, PAGE, 'E'), "and the file keeps its bytes");
    return unlink(path) != 0;
}
