/*
 * A file that another host replaces by rename all the time is whole, and there, whoever opens it and whoever looks.
 *
 *     replaced w DIRECTORY ROUNDS    makes DIRECTORY/new and renames it to DIRECTORY/file
 *     replaced r DIRECTORY           reads it, and looks at it in another process, until it sees the last
 *
 * Every word of a file is its round's number; the last one's is LAST.
 */
#include "race.h"
#include <signal.h>

enum { WORDS = 12 * PAGE / 4, LAST = 0x7fffffff };

static char file[256], fresh[256];
static uint32_t words[WORDS];

static void replace(int rounds)
{
    for (int round = 1; round <= rounds; round++) {
        for (int i = 0; i < WORDS; i++)
            words[i] = round == rounds ? LAST : round;
        int fd = open(fresh, O_RDWR | O_CREAT | O_TRUNC, 0600);
        must(fd >= 0 && write(fd, words, sizeof words) == sizeof words && close(fd) == 0);
        must(rename(fresh, file) == 0);
    }
}

static void look(int wrong)
{
    struct stat status;
    for (;;)
        if (stat(file, &status) != 0 || status.st_size != sizeof words)
            must(write(wrong, "w", 1) == 1);
}

int main(int argc, char **argv)
{
    must(argc >= 3);
    snprintf(file, sizeof file, "%s/file", argv[2]);
    snprintf(fresh, sizeof fresh, "%s/new", argv[2]);
    if (argv[1][0] == 'w') {
        replace(atoi(argv[3]));
        return 0;
    }
    int wrong = 0, ends[2];
    must(pipe2(ends, O_NONBLOCK) == 0);
    pid_t child = fork();
    if (child == 0)
        look(ends[1]);
    for (words[0] = 0; words[0] != LAST;) {
        int fd = open(file, O_RDWR);
        must(fd >= 0);
        ssize_t got = read(fd, words, sizeof words);
        int good = got == sizeof words && words[0] != 0;
        for (int i = 1; good && i < WORDS; i++)
            good = words[i] == words[0];
        wrong += !good;
        must(close(fd) == 0);
    }
    must(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    char byte;
    int looked_wrong = read(ends[0], &byte, 1) == 1;
    printf("%d wrong\n", wrong + looked_wrong);
    return 0;
}
