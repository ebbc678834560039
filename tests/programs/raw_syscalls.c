/* syscall(2) by number, as libuv and others call it: the files are the same, and so are results and errno. */
#include "program.h"
#include <linux/openat2.h>
#include <linux/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static int same(const void *a, const char *b)
{
    return memcmp(a, b, strlen(b)) == 0;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "raw_syscalls"), *moved = path_in(command.dir, "raw_syscalls_moved");
    char bytes[64];
    if (command.write) {
        int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_TRUNC, 0640);
        check(fd >= 0 && syscall(SYS_write, fd, "one two three", 13) == 13, "openat and write");
        check(syscall(SYS_pwrite64, fd, "TWO", 3, 4L) == 3 && syscall(SYS_fsync, fd) == 0, "pwrite64 and fsync");
        check(syscall(SYS_ftruncate, fd, 3L * PAGE) == 0 && syscall(SYS_close, fd) == 0, "ftruncate and close");
    }
    if (!command.check)
        return 0;

    struct statx x;
    check(syscall(SYS_statx, AT_FDCWD, path, 0, STATX_ALL, &x) == 0 && x.stx_size == 3 * PAGE, "statx");
    check(syscall(SYS_statx, AT_FDCWD, moved, 0, STATX_ALL, &x) == -1 && errno == ENOENT, "statx of what is not there");
    struct open_how how = {.flags = O_RDWR, .resolve = RESOLVE_NO_SYMLINKS};
    int fd = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    check(fd >= 0 && syscall(SYS_read, fd, bytes, 13) == 13 && same(bytes, "one TWO three"), "openat2 and read");
    struct iovec parts[2] = {{bytes, 3}, {bytes + 10, 4}};
    check(syscall(SYS_preadv, fd, parts, 2, 0L, 0L) == 7 && same(bytes, "one") && same(bytes + 10, " TWO"), "preadv");
    check(syscall(SYS_lseek, fd, 8L, SEEK_SET) == 8 && syscall(SYS_readv, fd, parts, 1) == 3 && same(bytes, "thr"), "lseek and readv");
    char *map = (char *)syscall(SYS_mmap, NULL, 3L * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0L);
    check(map != MAP_FAILED && same(map, "one TWO three"), "mmap");
    memcpy(map + 2 * PAGE, "stored", 6);
    check(syscall(SYS_msync, map, 3L * PAGE, MS_SYNC) == 0 && pread(fd, bytes, 6, 2 * PAGE) == 6 && same(bytes, "stored"), "msync");
    check(syscall(SYS_mprotect, map, (long)PAGE, PROT_READ) == 0 && map[0] == 'o' && syscall(SYS_munmap, map, 3L * PAGE) == 0,
          "mprotect and munmap");
    int other = syscall(SYS_dup, fd);
    check(syscall(SYS_copy_file_range, fd, &(loff_t){4}, other, &(loff_t){PAGE}, 9L, 0) == 9 && pread(other, bytes, 9, PAGE) == 9 &&
              same(bytes, "TWO three"),
          "dup and copy_file_range");
    check(syscall(SYS_fcntl, other, F_GETFL) == syscall(SYS_fcntl, fd, F_GETFL) && syscall(SYS_close, other) == 0, "fcntl");
    check(syscall(SYS_read, other, bytes, 1) == -1 && errno == EBADF, "a read of a closed descriptor");
    check(syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, moved, 0) == 0 && access(path, F_OK) == -1, "renameat2");
    check(syscall(SYS_faccessat, AT_FDCWD, moved, R_OK) == 0, "faccessat");
    check(syscall(SYS_unlinkat, AT_FDCWD, moved, 0) == 0 && access(moved, F_OK) == -1, "unlinkat");
    check(syscall(SYS_mkdirat, AT_FDCWD, moved, 0700) == 0 && syscall(SYS_unlinkat, AT_FDCWD, moved, AT_REMOVEDIR) == 0, "mkdirat");
    check(syscall(SYS_getpid) == getpid() && syscall(SYS_kill, -2, 99) == -1, "others go to the kernel");
    syscall(SYS_exit_group, 0);
    return 1;
}
