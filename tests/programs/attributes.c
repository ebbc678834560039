/* What a file has besides bytes: permissions, owner, times, and the places where they are asked for. */
#include "program.h"

#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <utime.h>

static unsigned mode_of(const char *path)
{
    struct stat status;
    need(stat(path, &status) == 0, "stat");
    return status.st_mode & 07777;
}

static int times_are(const char *path, time_t accessed, time_t modified)
{
    struct stat status;
    struct statx more;
    need(stat(path, &status) == 0 && statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &more) == 0, "stat and statx");
    return (accessed == -1 || status.st_atime == accessed) && status.st_mtime == modified && more.stx_mtime.tv_sec == modified;
}

static void permissions(const char *path, int fd)
{
    check(chmod(path, 0640) == 0 && mode_of(path) == 0640, "chmod");
    check(fchmod(fd, 0600) == 0 && mode_of(path) == 0600, "fchmod");
    check(fchmodat(AT_FDCWD, path, 0644, 0) == 0 && mode_of(path) == 0644, "fchmodat");
    check(chmod(path_in(path, "x"), 0600) == -1 && errno == ENOTDIR, "of nothing below a file");
    check(chown(path, getuid(), getgid()) == 0 && lchown(path, -1, -1) == 0 && fchown(fd, getuid(), -1) == 0
              && fchownat(AT_FDCWD, path, -1, getgid(), 0) == 0, "an owner stays one");
    check(access(path, R_OK | W_OK) == 0 && eaccess(path, R_OK) == 0 && faccessat(AT_FDCWD, path, F_OK, AT_EACCESS) == 0, "access");
    close(fd);
    int ro = open(path, O_RDONLY);
    check(fchmod(ro, 0400) == 0 && mode_of(path) == 0400, "fchmod of a read-only descriptor");
    check(chmod(path, 0600) == 0 && close(ro) == 0, "and back");
}

static void set_times(const char *path, int fd)
{
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 2000}};
    struct timeval old[2] = {{.tv_sec = 3000}, {.tv_sec = 4000}};
    struct utimbuf older = {5000, 6000};
    check(utimensat(AT_FDCWD, path, times, 0) == 0 && times_are(path, 1000, 2000), "utimensat");
    check(utimes(path, old) == 0 && times_are(path, 3000, 4000), "utimes");
    check(utime(path, &older) == 0 && times_are(path, 5000, 6000), "utime");
    times[0].tv_nsec = UTIME_OMIT;
    times[1].tv_sec = 7000;
    check(futimens(fd, times) == 0 && times_are(path, 5000, 7000), "futimens of one of them");
    check(futimes(fd, old) == 0 && times_are(path, 3000, 4000), "futimes");
    check(lutimes(path, old) == 0 && times_are(path, 3000, 4000), "lutimes");
    check(futimesat(AT_FDCWD, path, old) == 0 && times_are(path, 3000, 4000), "futimesat");
    times[0].tv_nsec = 1000000000;
    check(futimens(fd, times) == -1 && errno == EINVAL, "a second has fewer nanoseconds");
    check(utime(path_in(path, "x"), &older) == -1 && errno == ENOTDIR, "nothing is below a file");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "attributes");
    struct statfs fs;
    struct statvfs vfs;
    if (command.write) {
        struct timespec times[2] = {{.tv_sec = 12345}, {.tv_sec = 12345678}};
        int fd = make_pages(path, 2);
        const char *dir = path_in(command.dir, "attributes_dir");
        check(mkdir(dir, 0700) == 0 && chmod(dir, 0750) == 0 && utimensat(AT_FDCWD, dir, times, 0) == 0, "a directory's");
        check(fchmod(fd, 0604) == 0 && futimens(fd, times) == 0, "a mode and times that are set");
        close(fd);
    }
    if (!command.check)
        return 0;
    const char *dir = path_in(command.dir, "attributes_dir");
    check(mode_of(dir) == 0750 && times_are(dir, -1, 12345678) && rmdir(dir) == 0, "a directory's are found");
    check(mode_of(path) == 0604 && times_are(path, -1, 12345678), "are found by who comes later");
    permissions(path, open_or_fail(path, O_RDWR));
    int fd = open_or_fail(path, O_RDWR);
    set_times(path, fd);
    check(statfs(path, &fs) == 0 && fs.f_bsize == PAGE && statvfs(command.dir, &vfs) == 0 && fstatfs(fd, &fs) == 0
              && fstatvfs(fd, &vfs) == 0 && vfs.f_namemax == 255, "the file system");
    char value[8];
    check(getxattr(path, "user.none", value, sizeof value) == -1 && (errno == ENODATA || errno == ENOTSUP), "no attribute");
    check(removexattr(path, "user.none") == -1 && (errno == ENODATA || errno == ENOTSUP), "can be removed");
    check(setxattr(path, "bad", "v", 1, 0) == -1 && errno == ENOTSUP, "nor set without a namespace");
    return unlink(path) != 0;
}
