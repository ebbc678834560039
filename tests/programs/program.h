/*
 * What the programs here share: how they speak, and their command line.
 *
 *     PROGRAM DIR            does everything
 *     PROGRAM DIR write      the first half; nothing is removed
 *     PROGRAM DIR check      the second half, in a process of its own; removes the files
 *
 * Each prints "ok: SENTENCE" for what holds and exits 0, or "FAIL SENTENCE" at the first that does not and
 * exits 1. The lines are the same on every file system and engine: no sizes of the machine, no paths, no
 * times. They go out with write(2) at once, so that a fork never prints a buffer twice.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

struct command {
    const char *dir;
    int write; /* do the first half */
    int check; /* do the second half */
};

static inline struct command command_line(int argc, char **argv)
{
    int phase = argc == 3 && (strcmp(argv[2], "write") == 0 || strcmp(argv[2], "check") == 0);
    if (argc != 2 && !phase) {
        fprintf(stderr, "usage: %s DIR [write|check]\n", argv[0]);
        exit(2);
    }
    return (struct command){argv[1], argc == 2 || argv[2][0] == 'w', argc == 2 || argv[2][0] == 'c'};
}

/* DIR/name, in one of eight buffers by turns. */
static inline const char *path_in(const char *dir, const char *name)
{
    static char path[8][PATH_MAX];
    static unsigned turn;
    char *out = path[turn++ % 8];
    snprintf(out, PATH_MAX, "%s/%s", dir, name);
    return out;
}

/* Says that `sentence` holds, or ends the process. `holds` may have set errno. */
static inline void check(int holds, const char *sentence)
{
    if (holds) {
        dprintf(STDOUT_FILENO, "ok: %s\n", sentence);
        return;
    }
    dprintf(STDOUT_FILENO, "FAIL %s (errno %s)\n", sentence, strerrorname_np(errno));
    _exit(1);
}

/* Says what a call gave: 0, or the name of its errno. For tables, which the kernel's own answers fill. */
static inline void tell(const char *what, int failed)
{
    dprintf(STDOUT_FILENO, "ok: %s: %s\n", what, failed ? strerrorname_np(errno) : "0");
}

/* For what must work before anything can be said; silent when it does. */
static inline void need(int holds, const char *what)
{
    if (!holds)
        check(0, what);
}

static inline int open_or_fail(const char *path, int flags)
{
    int fd = open(path, flags, 0600);
    need(fd >= 0, "open");
    return fd;
}

/* A new file of `pages` pages: each byte of page i is 'A' + i % 26. */
static inline int make_pages(const char *path, size_t pages)
{
    static char page[PAGE];
    unlink(path);
    int fd = open_or_fail(path, O_RDWR | O_CREAT | O_EXCL);
    for (size_t i = 0; i < pages; i++) {
        memset(page, 'A' + (int)(i % 26), PAGE);
        need(write(fd, page, PAGE) == PAGE, "write");
    }
    return fd;
}

static inline char *map_or_fail(int fd, size_t length, int prot, int flags)
{
    char *at = mmap(NULL, length, prot, flags, fd, 0);
    need(at != MAP_FAILED, "mmap");
    return at;
}

static inline int all(const char *bytes, size_t count, char value)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i] != value)
            return 0;
    return 1;
}

/* Waits for a child; its exit status, or minus its signal. */
static inline int wait_for(pid_t child)
{
    int status = 0;
    need(child > 0 && waitpid(child, &status, 0) == child, "fork and waitpid");
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static sigjmp_buf touch_jump;
static volatile uintptr_t touch_address;
static volatile int touch_code;

static inline void touch_handler(int signal, siginfo_t *info, void *context)
{
    (void)context;
    touch_address = (uintptr_t)info->si_addr;
    touch_code = info->si_code;
    siglongjmp(touch_jump, signal);
}

/* Loads, or stores, one byte; 0, or the signal that came of it for that address, or -1 for another. */
static inline int touch(volatile char *at, int store)
{
    struct sigaction action = {.sa_sigaction = touch_handler, .sa_flags = SA_SIGINFO}, old_bus, old_segv;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &old_bus);
    sigaction(SIGSEGV, &action, &old_segv);
    int signal = sigsetjmp(touch_jump, 1);
    if (signal == 0) {
        if (store)
            *at = 'T';
        else
            (void)*at;
    } else if (touch_address != (uintptr_t)at) {
        signal = -1;
    }
    sigaction(SIGBUS, &old_bus, NULL);
    sigaction(SIGSEGV, &old_segv, NULL);
    return signal;
}

/* What a touch gives, with its code, as a word. */
static inline const char *touched(volatile char *at, int store)
{
    int signal = touch(at, store);
    if (signal == 0)
        return "works";
    if (signal == SIGBUS)
        return touch_code == BUS_ADRERR ? "BUS_ADRERR" : "SIGBUS with another code";
    if (signal != SIGSEGV)
        return "a signal for another address";
    return touch_code == SEGV_MAPERR ? "SEGV_MAPERR" : touch_code == SEGV_ACCERR ? "SEGV_ACCERR" : "SIGSEGV";
}

/* Whether a signal is blocked in this thread. */
static inline int is_blocked(int signal)
{
    sigset_t now;
    need(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0, "pthread_sigmask");
    return sigismember(&now, signal);
}

static inline int remove_one(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    (void)status, (void)kind, (void)at;
    return remove(path);
}

/* A directory and all below. 0 when it is gone. */
static inline int remove_all(const char *path)
{
    return nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
