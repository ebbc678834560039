/* What far memory's programs write and check: pages and words that follow from a stamp, and a seeded dice. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
#define UNUSED __attribute__((unused))

static UNUSED uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

static UNUSED uint64_t word_of(uint64_t stamp, size_t i) { return stamp == 0 ? 0 : stamp * 2 + i * 0x9e3779b97f4a7c15; }

static UNUSED void fill_words(void *at, size_t words, uint64_t stamp) {
    volatile uint64_t *word = at;
    for (size_t i = 0; i < words; i++)
        word[i] = word_of(stamp, i);
}

/* The first word that is not what it should be, or -1. */
static UNUSED ssize_t wrong_word(const void *at, size_t words, uint64_t stamp) {
    const volatile uint64_t *word = at;
    for (size_t i = 0; i < words; i++)
        if (word[i] != word_of(stamp, i))
            return i;
    return -1;
}

static UNUSED double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* At the first thing that does not hold. It uses no memory that may be away but the stack. */
#define WRONG(...)                                          \
    do {                                                    \
        dprintf(2, "WRONG (pid %d, line %d): ", getpid(), __LINE__); \
        dprintf(2, __VA_ARGS__);                            \
        dprintf(2, "\n");                                   \
        _exit(3);                                           \
    } while (0)
#define OK(call)                                            \
    do {                                                    \
        if (!(call))                                        \
            WRONG("%s: %s", #call, strerror(errno));        \
    } while (0)

/* What is about to change is marked before, in the order of the program. */
static UNUSED void barrier(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
static UNUSED void begin(volatile int *busy) {
    *busy = 1;
    barrier();
}
static UNUSED void end(volatile int *busy) {
    barrier();
    *busy = 0;
}
