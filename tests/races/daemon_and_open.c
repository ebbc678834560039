/*
 * What a process wrote before it ended is there for who opens the file in that moment, also if another one that had it was killed
 * while the last commit was under way.
 *
 *     daemon_and_open DIRECTORY ROUNDS
 */
#include "race.h"
#include <signal.h>
#include <sys/wait.h>

enum { PAGES = 300 };

/* A little later in each round, so that some round meets the moment. */
static void linger(int steps)
{
    for (volatile int i = 0; i < steps * 5000; i++)
        ;
}

static void write_and_end(int fd, int done)
{
    for (int page = 0; page < PAGES; page++)
        must(pwrite(fd, "again", 5, page * PAGE) == 5);
    must(write(done, "d", 1) == 1);
    _exit(0);
}

int main(int argc, char **argv)
{
    must(argc == 3);
    static const char pages[PAGES * PAGE] = "as it was";
    int wrong = 0;
    for (int round = 0; round < atoi(argv[2]); round++) {
        char path[256], got[5];
        snprintf(path, sizeof path, "%s/%d", argv[1], round);
        int ends[2];
        must(pipe(ends) == 0);
        pid_t child = fork();
        if (child == 0) {
            int fd = open(path, O_RDWR | O_CREAT, 0600);
            must(fd >= 0 && write(fd, pages, sizeof pages) == sizeof pages && fsync(fd) == 0);
            if (fork() == 0)
                write_and_end(fd, ends[1]);
            for (;;)
                pause();
        }
        must(close(ends[1]) == 0 && read(ends[0], got, 1) == 1 && close(ends[0]) == 0);
        linger(round % 40);
        must(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
        int fd = open(path, O_RDONLY);
        must(fd >= 0 && pread(fd, got, 5, (PAGES - 1) * PAGE) == 5);
        wrong += memcmp(got, "again", 5) != 0;
        must(close(fd) == 0 && unlink(path) == 0);
    }
    printf("%d wrong\n", wrong);
    return 0;
}
