/*
 * crowd: many threads load and store all over a file, each in bytes of its own, while others sync, fork or map.
 *
 *     crowd FILE THREADS PAGES ROUNDS fork|sync|map|none
 *
 * FILE is made if it is not there. Each page's first word is its number; thread T owns byte 64 + T of every page.
 * Prints "crowd: N wrong" and exits 0 if N is 0.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, THREADS_MAX = 512 };

static volatile unsigned char *base;
static size_t pages;
static unsigned long rounds, threads;
static int fd;
static atomic_ulong wrong;
static atomic_int done;

static uint64_t stamp(size_t page)
{
    return (page + 1) * 0x9e3779b97f4a7c15u;
}

static int right(size_t page)
{
    return *(volatile uint64_t *)(base + page * PAGE) == stamp(page);
}

static void *work(void *argument)
{
    unsigned long own = (uintptr_t)argument;
    unsigned long state = own * 2654435761u + 1;
    for (unsigned long round = 0; round < rounds; round++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        size_t page = (state >> 33) % pages;
        wrong += !right(page);
        volatile unsigned char *byte = base + page * PAGE + 64 + own;
        unsigned char before = *byte;
        *byte = (unsigned char)(before + 1);
        wrong += *byte != (unsigned char)(before + 1);
    }
    return NULL;
}

static void fork_once(void)
{
    pid_t child = fork();
    if (child == 0) {
        int bad = 0;
        for (size_t page = 0; page < pages; page += 7)
            bad |= !right(page);
        _exit(bad);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        fprintf(stderr, "crowd: a child ended with status %#x\n", status);
        wrong++;
    }
}

static void map_once(void)
{
    unsigned char *again = mmap(NULL, pages * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    if (again == MAP_FAILED) {
        wrong++;
        return;
    }
    for (size_t page = 0; page < pages; page += 13)
        wrong += memcmp(again + page * PAGE, &(uint64_t){stamp(page)}, 8) != 0;
    wrong += munmap(again, pages * PAGE) != 0;
}

static void *disturb(void *argument)
{
    const char *what = argument;
    do {
        if (strcmp(what, "fork") == 0)
            fork_once();
        else if (strcmp(what, "sync") == 0)
            wrong += msync((void *)base, pages * PAGE, MS_SYNC) != 0;
        else if (strcmp(what, "map") == 0)
            map_once();
    } while (!done && strcmp(what, "none") != 0);
    return NULL;
}

int main(int argc, char **argv)
{
    struct stat status;
    if (argc != 6)
        return 2;
    threads = strtoul(argv[2], NULL, 10), pages = strtoul(argv[3], NULL, 10), rounds = strtoul(argv[4], NULL, 10);
    fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    if (fd < 0 || fstat(fd, &status) != 0 || threads > THREADS_MAX || pages == 0)
        return 2;
    int fresh = status.st_size == 0;
    if (fresh && ftruncate(fd, (off_t)(pages * PAGE)) != 0)
        return 2;
    base = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return 2;
    for (size_t page = 0; fresh && page < pages; page++)
        *(volatile uint64_t *)(base + page * PAGE) = stamp(page);
    pthread_t thread[THREADS_MAX], other;
    for (unsigned long i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)i) != 0)
            return 2;
    if (pthread_create(&other, NULL, disturb, argv[5]) != 0)
        return 2;
    for (unsigned long i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    done = 1;
    pthread_join(other, NULL);
    printf("crowd: %lu wrong\n", (unsigned long)wrong);
    return wrong != 0;
}
