/* Takes memory until there is none, checks all of it, gives half of it back, and takes that much again.
   full touch MIB: a mapping of so much, touched page by page until that is SIGBUS
   full malloc MIB: blocks of 64 KiB, filled one by one until malloc says NULL, or all are there
   It says how many pages it had, and ends with 0 if every byte was right. */
#include "pattern.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#define BLOCK_PAGES 16

static sigjmp_buf back;

static void fail(int signal) { siglongjmp(back, signal); }

static char **blocks;

/* Blocks from `first` on until there are `most`, or no more can be had. */
static size_t take(size_t first, size_t most) {
    volatile size_t at = first;
    if (sigsetjmp(back, 1) != 0)
        WRONG("SIGBUS in block %zu", at);
    for (; at < most; at++) {
        blocks[at] = malloc(BLOCK_PAGES * PAGE);
        if (!blocks[at])
            return at;
        fill_words(blocks[at], BLOCK_PAGES * WORDS, at + 1);
    }
    return at;
}

static void check(char *at, size_t words, size_t stamp) {
    ssize_t wrong = wrong_word(at, words, stamp);
    if (wrong >= 0)
        WRONG("%p: word %zd", (void *)at, wrong);
}

static size_t touch(char *memory, size_t first, size_t pages) {
    volatile size_t at = first;
    if (sigsetjmp(back, 1) != 0)
        return at;
    for (; at < pages; at++)
        fill_words(memory + at * PAGE, WORDS, at + 1);
    return at;
}

int main(int count, char **arguments) {
    OK(count == 3);
    size_t pages = (size_t)atol(arguments[2]) << 8, had, again;
    OK(signal(SIGBUS, fail) != SIG_ERR);
    if (strcmp(arguments[1], "malloc") == 0) {
        size_t most = pages / BLOCK_PAGES;
        OK(blocks = calloc(most, sizeof *blocks));
        had = take(0, most);
        for (size_t i = 0; i < had; i++)
            check(blocks[i], BLOCK_PAGES * WORDS, i + 1);
        for (size_t i = had / 2; i < had; i++)
            free(blocks[i]);
        again = take(had / 2, had - had / 8);
        for (size_t i = 0; i < again; i++)
            check(blocks[i], BLOCK_PAGES * WORDS, i + 1);
        printf("%zu %zu\n", had * BLOCK_PAGES, again * BLOCK_PAGES);
        return 0;
    }
    char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OK(memory != MAP_FAILED);
    had = touch(memory, 0, pages);
    for (size_t i = 0; i < had; i++)
        check(memory + i * PAGE, WORDS, i + 1);
    OK(munmap(memory + had / 2 * PAGE, (pages - had / 2) * PAGE) == 0);
    OK(mmap(memory + had / 2 * PAGE, had / 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
       MAP_FAILED);
    again = touch(memory, had / 2, had / 2 + had / 4);
    for (size_t i = 0; i < again; i++)
        check(memory + i * PAGE, WORDS, i + 1);
    printf("%zu %zu\n", had, again);
    return 0;
}
