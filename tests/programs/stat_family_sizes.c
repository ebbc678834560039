/* stat, lstat, fstat, fstatat, statx and access tell the same of a file, and follow its size. */
#include "program.h"

static int agree(const char *path, int fd, int dir, off_t size)
{
    struct stat by_path, by_link, by_fd, by_dir;
    struct statx extended;
    return stat(path, &by_path) == 0 && lstat(path, &by_link) == 0 && fstat(fd, &by_fd) == 0
        && fstatat(dir, "stat_family_sizes", &by_dir, 0) == 0
        && statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &extended) == 0 && by_path.st_size == size
        && by_link.st_size == size && by_fd.st_size == size && by_dir.st_size == size
        && (off_t)extended.stx_size == size && by_path.st_ino == by_fd.st_ino
        && by_path.st_ino == by_dir.st_ino
        && by_path.st_ino == by_link.st_ino && extended.stx_ino == by_fd.st_ino
        && by_path.st_dev == by_fd.st_dev && by_path.st_mode == by_fd.st_mode
        && by_path.st_mode == extended.stx_mode && by_path.st_nlink == 1 && S_ISREG(by_path.st_mode);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "stat_family_sizes");
    if (command.write)
        close(make_pages(path, 3));
    if (!command.check)
        return 0;

    struct stat before, after;
    int dir = open_or_fail(command.dir, O_RDONLY | O_DIRECTORY), fd = open_or_fail(path, O_RDWR);
    check(agree(path, fd, dir, 3 * PAGE), "all agree on a file of three pages");
    need(pwrite(fd, "x", 1, 5 * PAGE) == 1, "pwrite");
    check(agree(path, fd, dir, 5 * PAGE + 1), "after a write beyond its end");
    need(ftruncate(fd, 100) == 0, "ftruncate");
    check(agree(path, fd, dir, 100), "after it shrank");
    need(truncate(path, (off_t)1 << 32) == 0, "truncate");
    check(agree(path, fd, dir, (off_t)1 << 32), "after it grew to 4 GiB");
    need(fstat(fd, &before) == 0, "fstat");
    char *map = map_or_fail(fd, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    map[PAGE] = 's';
    check(agree(path, fd, dir, (off_t)1 << 32), "after a store");
    need(msync(map, 2 * PAGE, MS_SYNC) == 0 && fstat(fd, &after) == 0, "msync and fstat");
    check(before.st_ino == after.st_ino && after.st_mtime >= before.st_mtime, "the same file, no older");

    check(access(path, F_OK) == 0 && access(path, R_OK | W_OK) == 0, "access to read and write");
    check(faccessat(dir, "stat_family_sizes", R_OK, 0) == 0, "faccessat");
    check(stat(path_in(command.dir, "none"), &after) == -1 && errno == ENOENT, "what is not there is ENOENT");
    check(fstatat(dir, "", &after, AT_EMPTY_PATH) == 0 && S_ISDIR(after.st_mode), "the directory itself");
    check(chmod(path, 0640) == 0 && fstat(fd, &after) == 0 && (after.st_mode & 07777) == 0640, "chmod shows");
    return unlink(path) != 0;
}
