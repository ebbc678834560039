/* A private mapping shows what the file holds, page by page, until it is written there; dropping the copy shows the file again. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "private_shows_until_written");
    if (command.write)
        close(make_pages(path, 16));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR), reader = open_or_fail(path, O_RDONLY);
    char *own = map_or_fail(reader, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    char *shared = map_or_fail(fd, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    char page[PAGE], want[PAGE];
    shared[0] = '0';
    check(own[0] == '0' && own[1] == 'A', "a store through a shared mapping is seen");
    need(pwrite(fd, "1", 1, PAGE) == 1, "pwrite");
    check(own[PAGE] == '1', "so is a write");
    own[2 * PAGE + 5] = 'p';
    check(all(own + 2 * PAGE, 5, 'C') && own[2 * PAGE + 6] == 'C', "a store into a page nobody touched keeps the rest");
    shared[2 * PAGE] = '2';
    check(own[2 * PAGE] == 'C' && shared[2 * PAGE + 5] == 'C', "from then on neither sees the other's");
    check(own[3 * PAGE] == 'D', "its neighbour");
    shared[3 * PAGE] = '3';
    check(own[3 * PAGE] == '3', "still shows the file's");
    own[0] = 'q';
    check(msync(own, 16 * PAGE, MS_SYNC) == 0 && pread(fd, page, 1, 0) == 1 && page[0] == '0', "msync writes nothing");

    check(madvise(own, 16 * PAGE, MADV_DONTNEED) == 0, "MADV_DONTNEED");
    check(own[0] == '0' && own[2 * PAGE] == '2' && own[2 * PAGE + 5] == 'C', "shows the file again");
    for (int i = 4; i < 16; i++) {
        memset(want, 'A' + i, PAGE);
        own[i * PAGE + i] = 'x', want[i] = 'x';
        need(memcmp(own + i * PAGE, want, PAGE) == 0, "a page");
    }
    check(pread(fd, page, PAGE, 9 * PAGE) == PAGE && all(page, PAGE, 'J'), "stores all over leave the file as it is");
    need(ftruncate(fd, 4 * PAGE + 8) == 0, "ftruncate");
    check(touch(own + 6 * PAGE, 0) == SIGBUS, "truncation takes private copies away, too");
    need(ftruncate(fd, 16 * PAGE) == 0, "ftruncate");
    check(all(own + 6 * PAGE, PAGE, 0), "and what grows again is zeros");
    pid_t child = fork();
    if (child == 0) {
        int right = own[4 * PAGE + 4] == 'x';
        own[6 * PAGE] = 'c';
        shared[7 * PAGE] = 's';
        _exit(!right);
    }
    check(wait_for(child) == 0 && own[6 * PAGE] == 0 && own[7 * PAGE] == 's', "a child's stores are its own");
    return unlink(path) != 0;
}
