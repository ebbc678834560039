/*
 * files CASE FILE: what differs from the kernel's tmpfs, or what it does not give. Prints a word for each call: ok, or its errno.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void say(const char *what, int result)
{
    printf("%s %s\n", what, result >= 0 ? "ok" : strerrorname_np(errno));
}

static int refused(const char *path)
{
    char other[4096];
    snprintf(other, sizeof other, "%s.other", path);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    say("link", link(path, "/tmp/netmem-never"));
    say("linkat", linkat(AT_FDCWD, "/etc/passwd", AT_FDCWD, other, 0));
    say("linkat-descriptor", linkat(fd, "", AT_FDCWD, "/tmp/netmem-never", AT_EMPTY_PATH));
    say("mkfifo", mkfifo(other, 0600));
    say("mknod", mknod(other, S_IFCHR | 0600, 0));
    say("tmpfile", open(path, O_TMPFILE | O_RDWR, 0600));
    say("read-lease", fcntl(fd, F_SETLEASE, F_RDLCK));
    say("write-lease", fcntl(fd, F_SETLEASE, F_WRLCK));
    say("whiteout", renameat2(AT_FDCWD, path, AT_FDCWD, other, RENAME_WHITEOUT));
    say("elsewhere", rename(path, "/tmp/netmem-never"));
    return 0;
}

/* A store moves the time of the last change with the sync that finds it. */
static int stored(const char *path)
{
    struct stat before, after;
    struct timespec start, now;
    int fd = open(path, O_RDWR);
    char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || map == MAP_FAILED || fstat(fd, &before) != 0)
        return 2;
    volatile char seen = map[5000];
    if (msync(map, 8192, MS_SYNC) != 0 || fstat(fd, &after) != 0)
        return 2;
    printf("loaded %s\n", before.st_mtim.tv_nsec == after.st_mtim.tv_nsec && before.st_ctim.tv_nsec == after.st_ctim.tv_nsec ? "same" : "moved");
    clock_gettime(CLOCK_REALTIME_COARSE, &start);
    do
        clock_gettime(CLOCK_REALTIME_COARSE, &now);
    while (now.tv_nsec == start.tv_nsec);
    map[5000] = (char)(seen + 1);
    if (msync(map, 8192, MS_SYNC) != 0 || fstat(fd, &after) != 0)
        return 2;
    int later = after.st_mtime > before.st_mtime || (after.st_mtime == before.st_mtime && after.st_mtim.tv_nsec > before.st_mtim.tv_nsec);
    int status = after.st_ctime > before.st_ctime || (after.st_ctime == before.st_ctime && after.st_ctim.tv_nsec > before.st_ctim.tv_nsec);
    printf("stored %s\n", later && status ? "moved" : "same");
    /* Times that are set after a store stay, whoever commits it. */
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1234}};
    map[5001] = 'x';
    if (futimens(fd, times) != 0 || msync(map, 8192, MS_SYNC) != 0 || fstat(fd, &after) != 0)
        return 2;
    printf("set %ld\n", (long)after.st_mtime);
    return 0;
}

static int shown(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return 2;
    printf("%ld.%09ld\n", (long)status.st_mtime, status.st_mtim.tv_nsec);
    return 0;
}

static int written(const char *path)
{
    struct stat status;
    /* Other bytes than the last time: what is the same goes nowhere. */
    pid_t bytes = getpid();
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || pwrite(fd, &bytes, sizeof bytes, 0) != sizeof bytes || fstat(fd, &status) != 0)
        return 2;
    printf("%ld.%09ld\n", (long)status.st_mtime, status.st_mtim.tv_nsec);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    return strcmp(argv[1], "refused") == 0 ? refused(argv[2]) : strcmp(argv[1], "stored") == 0 ? stored(argv[2])
        : strcmp(argv[1], "shown") == 0 ? shown(argv[2]) : written(argv[2]);
}
