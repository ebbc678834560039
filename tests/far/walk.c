/* Fills memory, goes over it and checks it.
   walk MIB [ROUNDS [stop]]: with stop, before each round it says `stopped` and waits for a line. */
#include "pattern.h"
#include <sys/mman.h>

int main(int count, char **arguments) {
    size_t pages = (size_t)atol(arguments[1]) << 8;
    int rounds = count > 2 ? atoi(arguments[2]) : 1;
    char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), byte;
    OK(memory != MAP_FAILED);
    for (size_t i = 0; i < pages; i++)
        fill_words(memory + i * PAGE, WORDS, i + 1);
    for (int round = 0; round < rounds; round++) {
        if (count > 3)
            OK(write(1, "stopped\n", 8) == 8 && read(0, &byte, 1) == 1);
        for (size_t i = 0; i < pages; i++) {
            /* In order, and then in no order. */
            size_t page = round % 2 == 0 ? i : i * 7919 % pages;
            uint64_t stamp = page + 1 + (uint64_t)round * pages;
            ssize_t wrong = wrong_word(memory + page * PAGE, WORDS, stamp);
            if (wrong >= 0)
                WRONG("round %d: page %zu, word %zd", round, page, wrong);
            fill_words(memory + page * PAGE, WORDS, stamp + pages);
        }
    }
    puts("ok");
    return 0;
}
