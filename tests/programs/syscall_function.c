/* syscall(2), the function: files, mappings and buffers by number are what they are by name; all other numbers are the kernel's. */
#include "buffers.h"
#include <linux/futex.h>
#include <sys/syscall.h>

static void files(const char *path)
{
    struct stat stat;
    char bytes[PAGE];
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT, 0600);
    check(fd >= 0 && syscall(SYS_write, fd, "twelve bytes", 12) == 12 && syscall(SYS_lseek, fd, 0, SEEK_SET) == 0
              && syscall(SYS_read, fd, bytes, 100) == 12 && memcmp(bytes, "twelve bytes", 12) == 0, "openat, write, lseek, read");
    check(syscall(SYS_ftruncate, fd, 4 * PAGE) == 0 && syscall(SYS_fstat, fd, &stat) == 0 && stat.st_size == 4 * PAGE,
          "ftruncate, fstat");
    char *map = (char *)syscall(SYS_mmap, NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(map != MAP_FAILED && memcmp(map, "twelve", 6) == 0, "mmap, with its six arguments");
    memcpy(map + 2 * PAGE, "stored", 6);
    check(syscall(SYS_msync, map, 4 * PAGE, MS_SYNC) == 0 && syscall(SYS_pread64, fd, bytes, 6, 2 * PAGE) == 6
              && memcmp(bytes, "stored", 6) == 0, "msync, pread64");
    check(syscall(SYS_pwrite64, fd, "across", 6, 3 * PAGE - 3) == 6 && memcmp(map + 3 * PAGE - 3, "across", 6) == 0, "pwrite64");
    loff_t from = 0, to = PAGE;
    check(syscall(SYS_copy_file_range, fd, &from, fd, &to, 12, 0) == 12 && from == 12 && to == PAGE + 12
              && memcmp(map + PAGE, "twelve bytes", 12) == 0, "copy_file_range");
    check(syscall(SYS_mprotect, map, PAGE, PROT_READ) == 0 && touch(map, 1) == SIGSEGV && touch(map, 0) == 0, "mprotect");
    check(syscall(SYS_munmap, map + PAGE, PAGE) == 0 && touch(map + PAGE, 0) == SIGSEGV && touch(map + 2 * PAGE, 0) == 0, "munmap");
    int copy = syscall(SYS_dup, fd);
    check(syscall(SYS_close, fd) == 0 && syscall(SYS_pread64, copy, bytes, 6, 2 * PAGE) == 6 && memcmp(bytes, "stored", 6) == 0,
          "dup, close");
    check(syscall(SYS_close, fd) == -1 && errno == EBADF, "and closed it is");
    check(syscall(SYS_unlinkat, AT_FDCWD, path, 0) == 0 && syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == -1 && errno == ENOENT,
          "unlinkat, faccessat");
    close(copy);
}

static void buffers(struct area *area, int state)
{
    char *random = place(area, state, 200);
    check(syscall(SYS_getrandom, random, 200, 0) == 200, "getrandom");
    int *word = place(area, state, sizeof *word);
    if (state == SYNCED)
        memcpy(word, "AAAA", 4), need(msync(area->map, area->pages * PAGE, MS_SYNC) == 0, "msync");
    struct timespec soon = {0, 1000000};
    check(syscall(SYS_futex, word, FUTEX_WAIT, -1, &soon, NULL, 0) == -1 && errno == EAGAIN, "FUTEX_WAIT sees the word");
    check(syscall(SYS_futex, word, FUTEX_WAIT, *word, &soon, NULL, 0) == -1 && errno == ETIMEDOUT, "FUTEX_WAIT waits");
    check(syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0) == 0, "FUTEX_WAKE");
    word = place(area, state, sizeof *word);
    *word = 0;
    need(msync(area->map, area->pages * PAGE, MS_SYNC) == 0, "msync");
    check(syscall(SYS_futex, word, FUTEX_LOCK_PI, 0, NULL, NULL, 0) == 0 && *word == syscall(SYS_gettid), "FUTEX_LOCK_PI stores");
    need(msync(area->map, area->pages * PAGE, MS_SYNC) == 0, "msync");
    check(syscall(SYS_futex, word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0) == 0 && *word == 0, "FUTEX_UNLOCK_PI too");
}

static void others(void)
{
    check(syscall(SYS_getpid) == getpid() && syscall(SYS_getppid) == getppid(), "getpid");
    check(syscall(-1) == -1 && errno == ENOSYS, "a number that is none");
    check(syscall(SYS_kill, getpid(), 99) == -1 && errno == EINVAL, "an error of another");
    pid_t child = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0)
        syscall(SYS_exit_group, 5);
    check(wait_for(child) == 5, "clone, exit_group");
}

int main(int argc, char **argv)
{
    enum { PAGES = 40 };
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "syscall_function");
    if (command.write)
        close(make_pages(path, PAGES));
    if (!command.check)
        return 0;
    struct area area = area_of(path, PAGES);
    files(path_in(command.dir, "syscall_function_other"));
    for (int state = UNTOUCHED; state < STATES; state++)
        buffers(&area, state);
    others();
    return unlink(path) != 0;
}
