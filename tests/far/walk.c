/* Fills memory, goes over it and checks it.
   walk MIB [ROUNDS [stop|lost]]: with stop, before each round it says `stopped` and waits for a line. With lost, it also says `lost` at a
   page that is not to be had, waits for a line, and goes on once the page is there. */
#include "pattern.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

static sigjmp_buf back;

static void fail(int signal) { siglongjmp(back, signal); }

/* Until the page can be read. */
static void wait_for(volatile char *page) {
    static int was_lost;
    char byte;
    if (sigsetjmp(back, 1) != 0 && !was_lost) {
        was_lost = 1;
        OK(write(1, "lost\n", 5) == 5 && read(0, &byte, 1) == 1);
    }
    (void)*page;
}

int main(int count, char **arguments) {
    size_t pages = (size_t)atol(arguments[1]) << 8;
    int rounds = count > 2 ? atoi(arguments[2]) : 1;
    char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), byte;
    OK(memory != MAP_FAILED);
    for (size_t i = 0; i < pages; i++)
        fill_words(memory + i * PAGE, WORDS, i + 1);
    if (count > 3 && strcmp(arguments[3], "lost") == 0)
        OK(signal(SIGBUS, fail) != SIG_ERR);
    for (int round = 0; round < rounds; round++) {
        if (count > 3)
            OK(write(1, "stopped\n", 8) == 8 && read(0, &byte, 1) == 1);
        for (size_t i = 0; i < pages; i++) {
            /* In order, and then in no order. */
            size_t page = round % 2 == 0 ? i : i * 7919 % pages;
            uint64_t stamp = page + 1 + (uint64_t)round * pages;
            wait_for(memory + page * PAGE);
            ssize_t wrong = wrong_word(memory + page * PAGE, WORDS, stamp);
            if (wrong >= 0)
                WRONG("round %d: page %zu, word %zd", round, page, wrong);
            fill_words(memory + page * PAGE, WORDS, stamp + pages);
        }
    }
    puts("ok");
    return 0;
}
