/* Takes memory piece by piece and fills each as it comes, as fast as it can; then checks all of it.
   grow HOW MIB: HOW is `heap` (small pieces of malloc's by brk), `chunks` (malloc's of 200 KiB, a mapping each), `maps` (mmap of 1 MiB),
   `arena` (small pieces of malloc's in a second thread) or `reads` (as `maps`, and what comes after 24 MiB is all read before it is filled). `limit` takes what RLIMIT_DATA leaves, and the rest is refused. */
#include "pattern.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>

/* Pieces that are filled before others are only read. */
#define FIRST 24

static size_t bytes, piece;
static char how;

static uint64_t **all;
static size_t count;

static void *take(void) {
    if (how == 'm' || how == 'r') {
        void *memory = mmap(NULL, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return memory == MAP_FAILED ? NULL : memory;
    }
    return malloc(piece);
}

static void *grow(void *unused) {
    for (count = 0; count * piece < bytes; count++) {
        errno = 0;
        all[count] = take();
        if (all[count] == NULL)
            break;
        if (how == 'r' && count >= FIRST)
            OK(wrong_word(all[count], piece / 8, 0) == -1);
        else
            fill_words(all[count], piece / 8, count + 1);
    }
    for (size_t i = FIRST; how == 'r' && i < count; i++)
        fill_words(all[i], piece / 8, i + 1);
    int refused = errno;
    for (size_t i = 0; i < count; i++) {
        ssize_t wrong = wrong_word(all[i], piece / 8, i + 1);
        if (wrong >= 0)
            WRONG("piece %zu, word %zd", i, wrong);
    }
    errno = refused;
    return unused;
}

int main(int arguments, char **argument) {
    OK(arguments == 3);
    how = argument[1][0];
    bytes = (size_t)atol(argument[2]) << 20;
    piece = how == 'm' || how == 'r' ? 1 << 20 : how == 'c' ? 200 << 10 : 1000;
    all = mmap(NULL, bytes / piece * 8 + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OK(all != MAP_FAILED);
    if (how == 'a') {
        pthread_t thread;
        OK(pthread_create(&thread, NULL, grow, NULL) == 0 && pthread_join(thread, NULL) == 0);
    } else if (how == 'l') {
        struct rlimit half = {bytes / 2, bytes / 2};
        OK(setrlimit(RLIMIT_DATA, &half) == 0);
        grow(NULL);
        OK(errno == ENOMEM && count * piece > bytes / 4);
        /* As libc does it itself. */
        OK(sbrk(bytes) == (void *)-1 && errno == ENOMEM);
        OK(brk(sbrk(0)) == 0);
        puts("refused");
        return 0;
    } else {
        grow(NULL);
    }
    OK(count * piece >= bytes);
    puts("ok");
    return 0;
}
