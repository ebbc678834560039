/*
 * One thread loads; another changes the protection of what is loaded. Afterwards the protection is what was asked for last: stores
 * go through or fault, and nobody waits for ever.
 *
 *     protect_and_load FILE
 */
#include "race.h"

#include <sched.h>
#include <setjmp.h>
#include <signal.h>

enum { PAGES = 64, ROUNDS = 800 };

static char *volatile base;
static volatile int begun, ended;
static volatile unsigned sum;
static sigjmp_buf jump;

static void on_fault(int signal)
{
    siglongjmp(jump, signal);
}

static int store_faults(volatile char *at)
{
    if (sigsetjmp(jump, 1) != 0)
        return 1;
    *at = 's';
    return 0;
}

static void *load(void *none)
{
    for (int round = 1; round <= ROUNDS; round++) {
        while (begun != round)
            sched_yield();
        for (int i = 0; i < PAGES; i++)
            sum += *(volatile char *)(base + i * PAGE);
        ended = round;
    }
    return none;
}

int main(int argc, char **argv)
{
    pthread_t other;
    int wrong = 0;
    must(argc == 2 && signal(SIGSEGV, on_fault) != SIG_ERR);
    int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    must(fd >= 0 && ftruncate(fd, PAGES * PAGE) == 0);
    must(pthread_create(&other, NULL, load, NULL) == 0);
    for (int round = 1; round <= ROUNDS; round++) {
        int before = round % 2 ? PROT_READ | PROT_WRITE : PROT_READ, flags = round % 4 < 2 ? MAP_PRIVATE : MAP_SHARED;
        base = mmap(NULL, PAGES * PAGE, before, flags, fd, 0);
        must(base != MAP_FAILED);
        begun = round;
        for (volatile int delay = 0; delay < round % 50 * 40; delay++)
            ;
        must(mprotect(base, PAGES * PAGE, before ^ PROT_WRITE) == 0);
        while (ended != round)
            sched_yield();
        for (int i = 0; i < PAGES; i++)
            wrong += store_faults(base + i * PAGE) != round % 2;
        must(munmap(base, PAGES * PAGE) == 0);
    }
    must(pthread_join(other, NULL) == 0);
    printf("%d wrong\n", wrong);
    return 0;
}
