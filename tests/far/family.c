/* Processes that each fill memory of their own, while all of them have it, and check it.
   family COUNT MIB fork|exec MOST: once all have filled theirs, it waits until no more than MOST MiB are resident in all of them */
#include "pattern.h"
#include <limits.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* Resident pages of a process that are no file's and not shared memory. */
static long resident(pid_t process) {
    char path[32];
    long all, own, shared;
    snprintf(path, sizeof path, "/proc/%d/statm", process);
    FILE *file = fopen(path, "r");
    OK(file && fscanf(file, "%ld %ld %ld", &all, &own, &shared) == 3 && fclose(file) == 0);
    return own - shared;
}

static void ready(int say, int go) {
    char byte;
    OK(write(say, "r", 1) == 1 && read(go, &byte, 1) == 0);
}

static void member(size_t pages, size_t stamp, int say, int go) {
    char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OK(memory != MAP_FAILED);
    for (size_t i = 0; i < pages; i++)
        fill_words(memory + i * PAGE, WORDS, stamp + i);
    /* The others have filled theirs, too. */
    ready(say, go);
    for (size_t i = 0; i < pages; i++) {
        ssize_t wrong = wrong_word(memory + i * PAGE, WORDS, stamp + i);
        if (wrong >= 0)
            WRONG("page %zu, word %zd", i, wrong);
    }
}

int main(int count, char **arguments) {
    if (count == 6) {
        member((size_t)atol(arguments[2]) << 8, (size_t)atol(arguments[3]), atoi(arguments[4]), atoi(arguments[5]));
        return 0;
    }
    OK(count == 5);
    pid_t children[64];
    int members = atoi(arguments[1]), says[2], goes[2], status, wrong = 0;
    char stamp[24], say[12], go[12], bytes[64];
    OK(pipe(says) == 0 && pipe(goes) == 0 && members <= 64);
    for (int i = 0; i < members; i++) {
        pid_t child = fork();
        OK(child != -1);
        if (child != 0) {
            children[i] = child;
            continue;
        }
        close(goes[1]);
        size_t first = (size_t)(i + 1) << 32;
        if (strcmp(arguments[3], "fork") == 0) {
            member((size_t)atol(arguments[2]) << 8, first, says[1], goes[0]);
            _exit(0);
        }
        snprintf(stamp, sizeof stamp, "%zu", first);
        snprintf(say, sizeof say, "%d", says[1]);
        snprintf(go, sizeof go, "%d", goes[0]);
        execl(arguments[0], arguments[0], "member", arguments[2], stamp, say, go, NULL);
        _exit(9);
    }
    for (int i = 0; i < members; i++)
        OK(read(says[0], bytes, 1) == 1);
    for (long all = LONG_MAX; all > atol(arguments[4]) << 8; usleep(1000)) {
        all = resident(getpid());
        for (int i = 0; i < members; i++)
            all += resident(children[i]);
    }
    close(goes[1]);
    for (int i = 0; i < members; i++) {
        OK(wait(&status) > 0);
        wrong |= status;
    }
    printf("%s\n", wrong ? "wrong" : "ok");
    return wrong != 0;
}
