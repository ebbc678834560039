/*
 * What a commit finds written belongs to the region that the place shows: a commit of A runs while the program
 * unmaps A and maps B at the same address; no store to B may be taken for one to A.
 *
 *     sync_and_reuse A B LOOPS async|peer
 *
 * A is committed by MS_ASYNC, or by a child that does nothing else. In the end page N of B begins with the word N + 1.
 */
#include "race.h"
#include <signal.h>

enum { PAGES = 16, LENGTH = PAGES * PAGE };

static pid_t peer(int fd)
{
    pid_t child = fork();
    must(child >= 0);
    if (child != 0)
        return child;
    char *base = shared(fd, 0, LENGTH);
    for (uint32_t number = 0;; number++) {
        store_word(base, number);
        must(fsync(fd) == 0);
    }
}

int main(int argc, char **argv)
{
    must(argc == 5);
    int a = open(argv[1], O_RDWR | O_CREAT, 0600), b = open(argv[2], O_RDWR | O_CREAT, 0600), same = 0;
    uint32_t loops = (uint32_t)atoi(argv[3]);
    must(a >= 0 && b >= 0 && ftruncate(a, LENGTH) == 0 && ftruncate(b, (off_t)loops * LENGTH) == 0);
    static const char page[PAGE] = "there before, so that a store is no fault of ours";
    for (uint32_t number = 0; number < loops * PAGES; number++)
        must(pwrite(b, page, PAGE, (off_t)number * PAGE) == PAGE);
    must(fsync(b) == 0);
    pid_t child = strcmp(argv[4], "peer") == 0 ? peer(a) : 0;
    for (uint32_t loop = 0; loop < loops; loop++) {
        char *first = shared(a, 0, LENGTH);
        for (int page = 1; page < PAGES; page += 4)
            store_word(first + page * PAGE, loop);
        must(child != 0 || msync(first, LENGTH, MS_ASYNC) == 0);
        for (volatile uint32_t turn = 0; turn < loop * 37 % 30000; turn++)
            continue;
        must(munmap(first, LENGTH) == 0);
        char *second = shared(b, (off_t)loop * LENGTH, LENGTH);
        same += second == first;
        for (uint32_t page = 0; page < PAGES; page++)
            store_word(second + page * PAGE, loop * PAGES + page + 1);
        must(msync(second, LENGTH, MS_SYNC) == 0);
        must(munmap(second, LENGTH) == 0);
    }
    must(child == 0 || (kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child));
    must(same > 0);
    _exit(0);
}
