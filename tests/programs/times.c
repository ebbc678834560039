/* When a file was changed: a write, a truncation and a hole move it; reading, loading and syncing don't. */
#include "program.h"

#include <time.h>

static struct stat now;

static int later(struct timespec a, struct timespec b)
{
    return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

static int same(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

/* Whether both times moved (2), only that of the status (1), or none (0) since the last look; -1 for anything else. */
static int moved(int fd)
{
    struct stat before = now;
    need(fstat(fd, &now) == 0, "fstat");
    int data = later(now.st_mtim, before.st_mtim), status = later(now.st_ctim, before.st_ctim);
    if (!data && !same(now.st_mtim, before.st_mtim))
        return -1;
    return data && status ? 2 : status && !data ? 1 : !data && same(now.st_ctim, before.st_ctim) ? 0 : -1;
}

/* Until the clock that files get their times from has moved on. */
static void tick(void)
{
    struct timespec start, at;
    clock_gettime(CLOCK_REALTIME_COARSE, &start);
    do
        clock_gettime(CLOCK_REALTIME_COARSE, &at);
    while (same(at, start));
}

static void looking(int fd, const char *path)
{
    static char bytes[8 * PAGE];
    struct stat named;
    struct statx more;
    tick();
    need(fstat(fd, &now) == 0, "fstat");
    check(pread(fd, bytes, 2 * PAGE, 0) == 2 * PAGE && moved(fd) == 0, "a read changes nothing");
    char *map = map_or_fail(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    check(map[3 * PAGE] == 'D' && map[5 * PAGE] == 'F' && moved(fd) == 0, "nor does a load");
    check(fsync(fd) == 0 && msync(map, 8 * PAGE, MS_SYNC) == 0 && moved(fd) == 0, "nor a sync of nothing");
    check(lseek(fd, 0, SEEK_DATA) == 0 && access(path, R_OK) == 0 && moved(fd) == 0, "nor a look at it");
    close(open_or_fail(path, O_RDWR));
    check(moved(fd) == 0, "nor opening and closing it");
    check(stat(path, &named) == 0 && same(named.st_mtim, now.st_mtim) && same(named.st_ctim, now.st_ctim)
              && statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &more) == 0 && more.stx_mtime.tv_sec == now.st_mtim.tv_sec
              && more.stx_mtime.tv_nsec == now.st_mtim.tv_nsec && more.stx_ctime.tv_nsec == now.st_ctim.tv_nsec,
          "all calls tell the same");
    munmap(map, 8 * PAGE);
}

static void changing(int fd, const char *path)
{
    tick();
    check(pwrite(fd, "x", 1, 10) == 1 && moved(fd) == 2, "a write moves both");
    tick();
    check(fsync(fd) == 0 && moved(fd) == 0, "its sync does not");
    tick();
    check(ftruncate(fd, 7 * PAGE) == 0 && moved(fd) == 2, "a truncation moves both");
    tick();
    check(truncate(path, 8 * PAGE) == 0 && moved(fd) == 2, "by name, too");
    tick();
    check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) == 0 && moved(fd) == 2, "a hole moves both");
    tick();
    check(fchmod(fd, 0640) == 0 && moved(fd) == 1, "another mode moves that of the status");
    tick();
    struct timespec times[2] = {{.tv_sec = 100}, {.tv_sec = 200, .tv_nsec = 5}};
    check(futimens(fd, times) == 0 && fstat(fd, &now) == 0 && now.st_atime == 100 && now.st_mtime == 200
              && now.st_mtim.tv_nsec == 5, "times can be set");
    check(fsync(fd) == 0 && moved(fd) == 0, "and stay");
    char byte;
    check(pread(fd, &byte, 1, 0) == 1 && moved(fd) == 0 && now.st_atime > 200, "a read moves the third");
    pid_t child = fork();
    if (child == 0) {
        struct stat there;
        _exit(stat(path, &there) != 0 || there.st_mtime != 200);
    }
    check(wait_for(child) == 0, "a child sees the same");
    tick();
    close(open_or_fail(path, O_RDWR | O_TRUNC));
    check(moved(fd) == 2 && now.st_size == 0, "emptying it moves both");
    tick();
    close(open_or_fail(path, O_RDWR | O_TRUNC));
    check(moved(fd) == 2, "also if it was empty");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "times");
    if (command.write) {
        time_t start = time(NULL);
        int fd = make_pages(path, 8);
        need(fstat(fd, &now) == 0, "fstat");
        check(now.st_mtime >= start - 1 && now.st_mtime <= time(NULL) + 1 && now.st_ctime >= start - 1, "a new file is of now");
        close(fd);
    }
    if (!command.check)
        return 0;
    int fd = open_or_fail(path, O_RDWR);
    looking(fd, path);
    changing(fd, path);
    return unlink(path) != 0;
}
