/*
 * together: processes and threads that store into bytes of their own, while in each process another thread commits, refreshes,
 * maps and unmaps, forks, and changes the size and the holes of the file behind those bytes. Whatever the order, each owner's
 * bytes end as the owner left them.
 *
 *     together FILE run PROCESSES THREADS ROUNDS SEED
 *     together FILE check PROCESSES THREADS ROUNDS SEED    in another process, on another host
 *
 * What an owner stores follows from the seed and its number alone, so that a check knows it. Prints "N wrong".
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    /* Pages that owners store into; behind them the file grows, shrinks and has holes. */
    OWNED = 600,
    BEHIND = 80,
    CELL = 64,
    OWNERS_MAX = PAGE / CELL,
    CHILDREN = 12,
};

static const char *path;
static int processes, threads, rounds;
static uint64_t seed;

static uint64_t roll(uint64_t *state)
{
    uint64_t word = *state += 0x9e3779b97f4a7c15;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
    word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
    return word ^ (word >> 31);
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static off_t place(int owner, int page)
{
    return (off_t)page * PAGE + owner * CELL;
}

static void fill(char cell[CELL], int owner, int round)
{
    for (int i = 0; i < CELL; i++)
        cell[i] = (char)(1 + (owner * 31 + round * 7 + i) % 255);
}

/* The steps of an owner, done (map != NULL) or only remembered: the round that each page was last stored in. */
static void steps(int owner, int last[OWNED], char *map, int fd)
{
    uint64_t state = seed * 1000 + (uint64_t)owner;
    memset(last, 0, OWNED * sizeof last[0]);
    for (int round = 1; round <= rounds; round++) {
        int page = (int)(roll(&state) % OWNED), how = (int)(roll(&state) % 8);
        char cell[CELL];
        last[page] = round;
        if (map == NULL)
            continue;
        fill(cell, owner, round);
        if (how < 6)
            for (int i = 0; i < CELL; i++)
                ((volatile char *)map)[place(owner, page) + i] = cell[i];
        else if (pwrite(fd, cell, CELL, place(owner, page)) != CELL)
            fail("pwrite");
    }
}

static long wrong(int owner, const int last[OWNED], const char *map, int fd)
{
    long count = 0;
    for (int page = 0; page < OWNED; page++) {
        char cell[CELL] = {0}, got[CELL];
        if (last[page] != 0)
            fill(cell, owner, last[page]);
        if (pread(fd, got, CELL, place(owner, page)) != CELL)
            fail("pread");
        int bad = memcmp(cell, got, CELL) != 0 || memcmp(cell, map + place(owner, page), CELL) != 0;
        if (bad && count++ == 0)
            fprintf(stderr, "owner %d page %d: round %d is not there\n", owner, page, last[page]);
    }
    return count;
}

struct owner {
    int number, fd;
    char *map;
    long wrong;
};

static void *own(void *argument)
{
    struct owner *owner = argument;
    static _Thread_local int last[OWNED];
    steps(owner->number, last, owner->map, owner->fd);
    owner->wrong = wrong(owner->number, last, owner->map, owner->fd);
    return NULL;
}

/* The cells of a process's children: the last one of each page that they stored into stays. */
static int childrens(int process)
{
    return processes * threads + process;
}

static void child(int process, int round, char *map)
{
    char cell[CELL];
    pid_t pid = fork();
    if (pid < 0)
        fail("fork");
    if (pid != 0) {
        int status;
        if (waitpid(pid, &status, 0) != pid || status != 0)
            fprintf(stderr, "a child ended with %x\n", status), exit(1);
        return;
    }
    fill(cell, childrens(process), round);
    memcpy(map + place(childrens(process), round * 7 % OWNED), cell, CELL);
    if (round % 3 == 0 && msync(map, OWNED * PAGE, MS_SYNC) != 0)
        fail("a child's msync");
    if (round % 2 == 0)
        _exit(0);
    exit(0);
}

struct disturber {
    int process, fd;
    char *map;
    volatile int done;
};

static void disturb_once(struct disturber *here, uint64_t *state)
{
    size_t from = roll(state) % OWNED, pages = 1 + roll(state) % (OWNED - from);
    off_t behind = (off_t)(OWNED + roll(state) % BEHIND) * PAGE + (off_t)(roll(state) % PAGE);
    char *range = here->map + from * PAGE, *other;
    switch (roll(state) % 9) {
    case 0:
        if (msync(range, pages * PAGE, MS_SYNC) != 0)
            fail("msync");
        break;
    case 1:
        if (msync(range, pages * PAGE, MS_ASYNC) != 0)
            fail("msync async");
        break;
    case 2:
        if (msync(range, pages * PAGE, MS_INVALIDATE) != 0)
            fail("msync invalidate");
        break;
    case 3:
        if (fsync(here->fd) != 0)
            fail("fsync");
        break;
    case 4:
        if (ftruncate(here->fd, behind) != 0)
            fail("ftruncate");
        break;
    case 5:
        if (fallocate(here->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, behind, 5 * PAGE) != 0)
            fail("fallocate");
        break;
    case 6:
        if (madvise(range, pages * PAGE, MADV_DONTNEED) != 0)
            fail("madvise");
        break;
    case 7:
        if (pwrite(here->fd, "behind", 6, behind) != 6)
            fail("pwrite behind");
        break;
    default:
        other = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, here->fd, (off_t)from * PAGE);
        if (other == MAP_FAILED)
            fail("mmap");
        (void)*(volatile char *)other;
        munmap(other, pages * PAGE);
    }
}

static void *disturb(void *argument)
{
    struct disturber *here = argument;
    uint64_t state = seed + 77 + (uint64_t)here->process;
    for (int round = 1; round <= CHILDREN || !here->done; round++) {
        disturb_once(here, &state);
        if (round <= CHILDREN)
            child(here->process, round, here->map);
    }
    return NULL;
}

static char *map_file(int *fd)
{
    *fd = open(path, O_RDWR | O_CREAT, 0644);
    char *map = *fd < 0 ? MAP_FAILED : mmap(NULL, OWNED * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (map == MAP_FAILED)
        fail(path);
    return map;
}

static long one_process(int process)
{
    struct owner owners[OWNERS_MAX];
    pthread_t thread[OWNERS_MAX], disturbing;
    struct disturber here = {.process = process};
    long count = 0;
    here.map = map_file(&here.fd);
    pthread_create(&disturbing, NULL, disturb, &here);
    for (int i = 0; i < threads; i++) {
        owners[i] = (struct owner){process * threads + i, here.fd, here.map, 0};
        pthread_create(&thread[i], NULL, own, &owners[i]);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(thread[i], NULL);
        count += owners[i].wrong;
    }
    here.done = 1;
    pthread_join(disturbing, NULL);
    return count;
}

static long check(void)
{
    int fd, last[OWNED];
    char *map = map_file(&fd);
    long count = 0;
    for (int owner = 0; owner < processes * threads; owner++) {
        steps(owner, last, NULL, -1);
        count += wrong(owner, last, map, fd);
    }
    for (int process = 0; process < processes; process++) {
        memset(last, 0, sizeof last);
        for (int round = 1; round <= CHILDREN; round++)
            last[round * 7 % OWNED] = round;
        count += wrong(childrens(process), last, map, fd);
    }
    return count;
}

static long run(void)
{
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    if (fd < 0 || ftruncate(fd, OWNED * PAGE + 100) != 0 || close(fd) != 0)
        fail(path);
    for (int process = 1; process < processes; process++) {
        pid_t pid = fork();
        if (pid == 0)
            exit(one_process(process) == 0 ? 0 : 3);
        if (pid < 0)
            fail("fork");
    }
    long count = one_process(0);
    for (int process = 1; process < processes; process++) {
        int status;
        wait(&status);
        if (status != 0) {
            fprintf(stderr, "a process ended with %x\n", status);
            count++;
        }
    }
    return count + check();
}

int main(int count, char **argument)
{
    if (count < 7) {
        fprintf(stderr, "together FILE run|check PROCESSES THREADS ROUNDS SEED\n");
        return 2;
    }
    path = argument[1];
    processes = atoi(argument[3]);
    threads = atoi(argument[4]);
    rounds = atoi(argument[5]);
    seed = strtoull(argument[6], NULL, 0);
    long bad = strcmp(argument[2], "run") == 0 ? run() : check();
    printf("%ld wrong\n", bad);
    return bad != 0;
}
