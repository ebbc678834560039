/* A write to a descriptor with O_SYNC or O_DSYNC, fsync and fdatasync: kept when they return. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "osync_write");
    if (command.write) {
        close(make_pages(path, 6));
        pid_t child = fork();
        if (child == 0) { /* whoever is killed has kept what was synced before */
            int sync = open_or_fail(path, O_RDWR | O_SYNC), data = open_or_fail(path, O_RDWR | O_DSYNC);
            int plain = open_or_fail(path, O_RDWR);
            check((fcntl(sync, F_GETFL) & O_SYNC) == O_SYNC, "O_SYNC is known");
            check(pwrite(sync, "sync", 4, 10) == 4, "a write with O_SYNC");
            check(pwrite(data, "dsync", 5, 2 * PAGE - 2) == 5, "a write with O_DSYNC");
            check(pwrite(plain, "fsync", 5, 3 * PAGE) == 5 && fsync(plain) == 0, "a write and fsync");
            char *map = map_or_fail(plain, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
            map[4 * PAGE] = 'm';
            check(fdatasync(plain) == 0, "a store and fdatasync");
            map[5 * PAGE] = 's';
            check(pwrite(sync, "k", 1, 7 * PAGE - 1) == 1, "a write with O_SYNC that grows the file");
            raise(SIGKILL);
        }
        check(wait_for(child) == -SIGKILL, "then it is killed");
    }
    if (!command.check)
        return 0;

    char page[PAGE];
    int fd = open_or_fail(path, O_RDONLY);
    check(pread(fd, page, PAGE, 0) == PAGE && memcmp(page + 9, "AsyncA", 6) == 0, "O_SYNC kept it");
    check(pread(fd, page, 7, 2 * PAGE - 3) == 7 && memcmp(page, "BdsyncC", 7) == 0, "O_DSYNC kept it");
    check(pread(fd, page, 6, 3 * PAGE) == 6 && memcmp(page, "fsyncD", 6) == 0, "fsync kept it");
    check(pread(fd, page, 2, 4 * PAGE) == 2 && memcmp(page, "mE", 2) == 0, "fdatasync kept the store");
    check(pread(fd, page, 2, 5 * PAGE) == 2 && memcmp(page, "sF", 2) == 0, "O_SYNC keeps stores made before");
    check(lseek(fd, 0, SEEK_END) == 7 * PAGE && pread(fd, page, PAGE, 6 * PAGE) == PAGE
              && all(page, PAGE - 1, 0) && page[PAGE - 1] == 'k', "and the new size");
    return unlink(path) != 0;
}
