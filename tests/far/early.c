/* Fills more than its budget while nobody answers, forks, and changes addresses; then fills more, and checks all of it.
   early: it says `forked` once a child, and a child of that, have found everything and have ended, and waits for a line. */
#include "pattern.h"
#include <sys/mman.h>
#include <sys/wait.h>

#define FIRST ((size_t)24 << 8)
#define ALL ((size_t)64 << 8)

static void check(const char *memory, size_t pages, uint64_t stamp) {
    for (size_t i = 0; i < pages; i++) {
        ssize_t wrong = wrong_word(memory + i * PAGE, WORDS, stamp + i);
        if (wrong >= 0)
            WRONG("page %zu, word %zd", i, wrong);
    }
}

static void fill(char *memory, size_t from, size_t to, uint64_t stamp) {
    for (size_t i = from; i < to; i++)
        fill_words(memory + i * PAGE, WORDS, stamp + i);
}

static void in_a_child(char *memory, int depth) {
    pid_t child = fork();
    OK(child >= 0);
    if (child > 0) {
        int status;
        OK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        return;
    }
    check(memory, FIRST, 1);
    char *moved = mremap(memory, FIRST * PAGE, 2 * FIRST * PAGE, MREMAP_MAYMOVE);
    OK(moved != MAP_FAILED);
    check(moved, FIRST, 1);
    fill(moved, 0, 256, 5);
    check(moved, 256, 5);
    check(moved + 256 * PAGE, FIRST - 256, 257);
    fill(moved, 0, 256, 1);
    if (depth > 0)
        in_a_child(moved, depth - 1);
    check(moved, FIRST, 1);
    exit(0);
}

int main(void) {
    char byte, *memory = mmap(NULL, FIRST * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OK(memory != MAP_FAILED);
    fill(memory, 0, FIRST, 1);
    in_a_child(memory, 1);
    OK(write(1, "forked\n", 7) == 7 && read(0, &byte, 1) == 1);
    check(memory, FIRST, 1);
    /* What lay beside it is new, and may not be served yet. */
    memory = mremap(memory, FIRST * PAGE, ALL * PAGE, MREMAP_MAYMOVE);
    OK(memory != MAP_FAILED);
    fill(memory, FIRST, ALL, 1);
    check(memory, ALL, 1);
    OK(munmap(memory + FIRST * PAGE, FIRST * PAGE) == 0);
    check(memory, FIRST, 1);
    in_a_child(memory, 1);
    puts("ok");
    return 0;
}
