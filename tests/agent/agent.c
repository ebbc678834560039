/*
 * agent: does what standard input says, one line at a time, and answers each with one line: "ok VALUE", or
 * "err ERRNO" with the errno's or the signal's name. It is the hand with which a test steps through several
 * processes and hosts in a fixed order.
 *
 *     open PATH r|w|rw[c][x][t]      a descriptor number     unlink PATH, rename A B, mkdir PATH, size PATH
 *     close FD  fsync FD             truncate FD BYTES       pread FD OFF COUNT   pwrite FD OFF TEXT
 *     commit FD [strict|instant]     netmem_commit: the epoch      refresh FD             netmem_refresh: the same
 *     together [strict] FD...        netmem_commit_together: the epochs
 *     punch FD OFF COUNT             fallocate, which makes a hole
 *     map FD OFF LENGTH shared|private r|w                   a mapping's number
 *     unmap M OFF LENGTH             protect M OFF LENGTH none|r|rw
 *     anonymous M OFF LENGTH         puts anonymous memory over a part of it
 *     own M OFF LENGTH FD            puts a private mapping of the file over it, from OFF of both
 *     move M 0 LENGTH                moves it to another place
 *     load M OFF COUNT               the bytes, NUL as '.'
 *     store M OFF TEXT               fill M OFF COUNT LETTER      same M OFF COUNT LETTER: yes or no
 *     sum M OFF COUNT                FNV-1a of the bytes
 *     sync M OFF LENGTH FLAGS        letters s, a, i; - for none
 *     lock FD, unlock FD             lockf
 *     forked LINE                    LINE in a child, which answers and ends with _exit
 *     aside LINE                     LINE in a thread, without an answer; join: waits for it, and gives its answer
 *     threads                        tasks of this process
 *     return N, exit N, _exit N, _Exit N, quick_exit N, pthread_exit, abort, kill N, exec PROGRAM
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAPPINGS_MAX = 64, LINE_MAX_BYTES = 8192 };

static char *mapping[MAPPINGS_MAX];
static int mappings;
static _Thread_local sigjmp_buf jump;
/* What main returns; -1: it goes on. */
static int returned = -1;
/* Where this thread's answers go. */
static _Thread_local int out = STDOUT_FILENO;

static void on_signal(int signal)
{
    siglongjmp(jump, signal);
}

static void answer_number(long value)
{
    if (value < 0)
        dprintf(out, "err %s\n", strerrorname_np(errno));
    else
        dprintf(out, "ok %ld\n", value);
}

/* Zero or an errno, as the functions of POSIX that have no value. */
static void answer(long result)
{
    if (result < 0)
        dprintf(out, "err %s\n", strerrorname_np(errno));
    else
        dprintf(out, "ok\n");
}

static void answer_bytes(const char *bytes, size_t count)
{
    static char copy[LINE_MAX_BYTES];
    if (count > sizeof copy)
        count = sizeof copy;
    for (size_t i = 0; i < count; i++)
        copy[i] = bytes[i] == 0 ? '.' : bytes[i];
    dprintf(out, "ok %.*s\n", (int)count, copy);
}

static int open_flags(const char *letters)
{
    int flags = strchr(letters, 'r') == NULL ? O_WRONLY : strchr(letters, 'w') == NULL ? O_RDONLY : O_RDWR;
    flags |= strchr(letters, 'c') ? O_CREAT : 0;
    flags |= strchr(letters, 'x') ? O_EXCL : 0;
    return flags | (strchr(letters, 't') ? O_TRUNC : 0);
}

static int protection(const char *word)
{
    if (strcmp(word, "none") == 0)
        return PROT_NONE;
    return strcmp(word, "r") == 0 ? PROT_READ : PROT_READ | PROT_WRITE;
}

static int sync_flags(const char *letters)
{
    return (strchr(letters, 's') ? MS_SYNC : 0) | (strchr(letters, 'a') ? MS_ASYNC : 0)
           | (strchr(letters, 'i') ? MS_INVALIDATE : 0) | (strchr(letters, '?') ? 64 : 0);
}

static long threads(void)
{
    long count = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; tasks != NULL && (entry = readdir(tasks)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(tasks);
    return count;
}

static char *at(const char *number, const char *offset)
{
    return mapping[atoi(number) % MAPPINGS_MAX] + strtoull(offset, NULL, 0);
}

/* Regions that commit together; the words behind the call's name. */
static void together(char **word)
{
    int (*commit)(const int *, size_t, unsigned, uint64_t *) =
        (int (*)(const int *, size_t, unsigned, uint64_t *))dlsym(RTLD_DEFAULT, "netmem_commit_together");
    unsigned flags = strcmp(word[0], "strict") == 0;
    int fds[4];
    uint64_t epochs[4];
    size_t count = 0;
    for (word += flags; count < 4 && word[count] != NULL; count++)
        fds[count] = atoi(word[count]);
    if (commit(fds, count, flags, epochs) != 0) {
        answer(-1);
        return;
    }
    dprintf(out, "ok");
    for (size_t i = 0; i < count; i++)
        dprintf(out, " %llu", (unsigned long long)epochs[i]);
    dprintf(out, "\n");
}

/* Calls on names and descriptors. 0: not one of them. */
static int file_call(char *word[6])
{
    struct stat status;
    static char bytes[LINE_MAX_BYTES];
    const char *call = word[0];
    int fd = word[1] ? atoi(word[1]) : -1;
    if (strcmp(call, "open") == 0)
        answer_number(open(word[1], open_flags(word[2]), 0600));
    else if (strcmp(call, "unlink") == 0)
        answer(unlink(word[1]));
    else if (strcmp(call, "rename") == 0)
        answer(rename(word[1], word[2]));
    else if (strcmp(call, "mkdir") == 0)
        answer(mkdir(word[1], 0700));
    else if (strcmp(call, "size") == 0)
        answer_number(stat(word[1], &status) == 0 ? (long)status.st_size : -1);
    else if (strcmp(call, "close") == 0)
        answer(close(fd));
    else if (strcmp(call, "fsync") == 0)
        answer(fsync(fd));
    else if (strcmp(call, "commit") == 0 || strcmp(call, "refresh") == 0) {
        /* The library is preloaded, and not linked. */
        uint64_t epoch = 0;
        int (*commit)(int, unsigned, uint64_t *) = (int (*)(int, unsigned, uint64_t *))dlsym(RTLD_DEFAULT, "netmem_commit");
        int (*refresh)(int, uint64_t *) = (int (*)(int, uint64_t *))dlsym(RTLD_DEFAULT, "netmem_refresh");
        int failed = call[0] == 'c' ? commit(fd, word[2] == NULL ? 0 : strcmp(word[2], "strict") == 0 ? 1 : strcmp(word[2], "instant") == 0 ? 2 : 0, &epoch) : refresh(fd, &epoch);
        answer_number(failed ? -1 : (long)epoch);
    } else if (strcmp(call, "together") == 0 && word[1] != NULL)
        together(word + 1);
    else if (strcmp(call, "truncate") == 0)
        answer(ftruncate(fd, strtoll(word[2], NULL, 0)));
    else if (strcmp(call, "punch") == 0)
        answer(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, strtoll(word[2], NULL, 0),
                         strtoll(word[3], NULL, 0)));
    else if (strcmp(call, "lock") == 0)
        answer(lockf(fd, F_LOCK, 0));
    else if (strcmp(call, "unlock") == 0)
        answer(lockf(fd, F_ULOCK, 0));
    else if (strcmp(call, "pwrite") == 0)
        answer_number(pwrite(fd, word[3], strlen(word[3]), strtoll(word[2], NULL, 0)));
    else if (strcmp(call, "pread") == 0) {
        ssize_t count = pread(fd, bytes, (size_t)atoi(word[3]) % sizeof bytes, strtoll(word[2], NULL, 0));
        if (count < 0)
            answer(-1);
        else
            answer_bytes(bytes, (size_t)count);
    } else
        return 0;
    return 1;
}

static void map(char *word[6])
{
    int flags = strcmp(word[4], "private") == 0 ? MAP_PRIVATE : MAP_SHARED;
    int prot = strcmp(word[5], "r") == 0 ? PROT_READ : PROT_READ | PROT_WRITE;
    char *base = mmap(NULL, strtoull(word[3], NULL, 0), prot, flags, atoi(word[1]), strtoll(word[2], NULL, 0));
    if (base == MAP_FAILED) {
        answer(-1);
        return;
    }
    mapping[mappings % MAPPINGS_MAX] = base;
    answer_number(mappings++);
}

/* To another place than the one it has. */
static void move(int number, size_t length)
{
    char *place = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *moved = mremap(mapping[number], length, length, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    if (moved != MAP_FAILED)
        mapping[number] = moved;
    answer(moved == MAP_FAILED ? -1 : 0);
}

/* Calls on ranges of mappings. */
static int range_call(char *word[6])
{
    const char *call = word[0];
    if (word[3] == NULL)
        return 0;
    char *base = at(word[1], word[2]);
    size_t length = strtoull(word[3], NULL, 0);
    if (strcmp(call, "map") == 0)
        map(word);
    else if (strcmp(call, "unmap") == 0)
        answer(munmap(base, length));
    else if (strcmp(call, "protect") == 0)
        answer(mprotect(base, length, protection(word[4])));
    else if (strcmp(call, "sync") == 0)
        answer(msync(base, length, sync_flags(word[4])));
    else if (strcmp(call, "anonymous") == 0)
        answer(mmap(base, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
                       == MAP_FAILED ? -1 : 0);
    else if (strcmp(call, "own") == 0)
        answer(mmap(base, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, atoi(word[4]), atoll(word[2]))
                       == MAP_FAILED ? -1 : 0);
    else if (strcmp(call, "move") == 0)
        move(atoi(word[1]), length);
    else
        return 0;
    return 1;
}

/* Loads and stores, which may end in a signal. */
static int memory_call(char *word[6])
{
    const char *call = word[0];
    if (word[3] == NULL)
        return 0;
    volatile char *base = at(word[1], word[2]);
    size_t count = strtoull(word[3], NULL, 0);
    if (strcmp(call, "load") == 0) {
        static char bytes[LINE_MAX_BYTES];
        for (size_t i = 0; i < count && i < sizeof bytes; i++)
            bytes[i] = base[i];
        answer_bytes(bytes, count);
    } else if (strcmp(call, "store") == 0) {
        for (size_t i = 0; word[3][i] != 0; i++)
            base[i] = word[3][i];
        answer(0);
    } else if (strcmp(call, "fill") == 0) {
        for (size_t i = 0; i < count; i++)
            base[i] = word[4][0];
        answer(0);
    } else if (strcmp(call, "same") == 0) {
        size_t i = 0;
        while (i < count && base[i] == word[4][0])
            i++;
        dprintf(out, i == count ? "ok yes\n" : "ok no, at %zu\n", i);
    } else if (strcmp(call, "sum") == 0) {
        uint64_t hash = 0xcbf29ce484222325;
        for (size_t i = 0; i < count; i++)
            hash = (hash ^ (unsigned char)base[i]) * 0x100000001b3;
        dprintf(out, "ok %016jx\n", (uintmax_t)hash);
    } else
        return 0;
    return 1;
}

static void end(const char *call, const char *value)
{
    if (strcmp(call, "return") == 0) {
        returned = atoi(value);
        return;
    }
    if (strcmp(call, "exit") == 0)
        exit(atoi(value));
    else if (strcmp(call, "_exit") == 0)
        _exit(atoi(value));
    else if (strcmp(call, "_Exit") == 0)
        _Exit(atoi(value));
    else if (strcmp(call, "quick_exit") == 0)
        quick_exit(atoi(value));
    else if (strcmp(call, "pthread_exit") == 0)
        pthread_exit(NULL);
    else if (strcmp(call, "abort") == 0)
        abort();
    else if (strcmp(call, "kill") == 0)
        kill(getpid(), atoi(value));
    else if (strcmp(call, "exec") == 0)
        execl(value, value, (char *)NULL);
    else if (strcmp(call, "threads") == 0) {
        answer_number(threads());
        return;
    }
    dprintf(out, "what is %s?\n", call);
}

static void obey(char *line);

static pthread_t thread;
static char aside[LINE_MAX_BYTES];
static int answers[2];

static void *obey_aside(void *line)
{
    out = answers[1];
    obey(line);
    return NULL;
}

/* The answer of the one thread that may be told something. */
static void join_aside(void)
{
    static char text[LINE_MAX_BYTES];
    pthread_join(thread, NULL);
    ssize_t count = read(answers[0], text, sizeof text);
    close(answers[0]);
    close(answers[1]);
    dprintf(out, "%.*s", (int)count, text);
}

static void obey(char *line)
{
    if (strncmp(line, "aside ", 6) == 0) {
        if (pipe(answers) == 0)
            pthread_create(&thread, NULL, obey_aside, strcpy(aside, line + 6));
        return;
    }
    if (strncmp(line, "join", 4) == 0) {
        join_aside();
        return;
    }
    if (strncmp(line, "forked ", 7) == 0) {
        pid_t child = fork();
        if (child == 0) {
            obey(line + 7);
            _exit(0);
        }
        waitpid(child, NULL, 0);
        return;
    }
    char *word[6] = {0}, *rest;
    int count = 0;
    for (char *next = strtok_r(line, " \n", &rest); next != NULL && count < 6; next = strtok_r(NULL, " \n", &rest))
        word[count++] = next;
    int signal = sigsetjmp(jump, 1);
    if (signal != 0)
        dprintf(out, "err SIG%s\n", sigabbrev_np(signal));
    else if (count > 0 && !file_call(word) && !range_call(word) && !memory_call(word))
        end(word[0], count > 1 ? word[1] : "0");
}

int main(void)
{
    static char line[LINE_MAX_BYTES];
    signal(SIGBUS, on_signal);
    signal(SIGSEGV, on_signal);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    while (returned < 0 && fgets(line, sizeof line, stdin) != NULL)
        obey(line);
    return returned < 0 ? 0 : returned;
}
