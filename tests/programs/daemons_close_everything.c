/*
 * Daemons close every descriptor that they can name, leave their session, and go on with what is mapped: by a loop, by closefrom,
 * by close_range, and through daemon(3), which leaves the directory too. A child on a terminal of its own has that for its input. A program that is ended by SIGTERM leaves what it stored to those that map it too.
 */
#include "program.h"
#include <pty.h>

enum { PAGES = 40 };

static const char *path, *dir;

static void by_loop(int keep)
{
    for (int fd = 0; fd < (int)sysconf(_SC_OPEN_MAX); fd++)
        if (fd != keep && fd != STDOUT_FILENO)
            close(fd);
}

static void by_closefrom(int keep)
{
    need(dup2(keep, 2) == 2, "dup2");
    closefrom(3);
}

static void by_close_range(int keep)
{
    need(dup2(keep, 2) == 2, "dup2");
    need(close_range(3, ~0U, 0) == 0, "close_range");
}

static void by_daemon(int keep)
{
    (void)keep;
    char byte, where[64];
    int fd = open_or_fail(path, O_RDWR);
    need(dup2(fd, 0) == 0 && close(fd) == 0 && read(0, &byte, 1) == 1, "standard input is the file");
    need(chdir(dir) == 0 && access("daemons", F_OK) == 0, "the working directory is its directory");
    need(daemon(0, 0) == 0, "daemon");
    need(read(0, &byte, 1) == 0 && write(0, "x", 1) == 1 && fsync(0) == -1, "standard input is /dev/null");
    need(access("daemons", F_OK) == -1 && strcmp(getcwd(where, sizeof where), "/") == 0, "the working directory is /");
}

/* A child on a terminal of its own, of a parent whose standard input is the file. */
static void on_a_terminal(void)
{
    pid_t child = fork();
    if (child == 0) {
        int terminal, fd = open_or_fail(path, O_RDWR);
        char byte;
        need(dup2(fd, 0) == 0 && close(fd) == 0 && read(0, &byte, 1) == 1, "standard input is the file");
        pid_t inner = forkpty(&terminal, NULL, NULL, NULL);
        if (inner == 0)
            _exit(isatty(0) && lseek(0, 0, SEEK_SET) == -1 && errno == ESPIPE ? 7 : 8);
        _exit(wait_for(inner));
    }
    check(wait_for(child) == 7, "a child of forkpty has the terminal for its input");
}

/* A child that closes all it has in `way`, then loads, stores, syncs, and opens the file anew; a byte in the pipe when it is done. */
static void goes_on(const char *sentence, void (*way)(int), int page)
{
    int ends[2];
    need(pipe(ends) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        int fd = open_or_fail(path, O_RDWR);
        char *at = map_or_fail(fd, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
        need(at[0] == 'A', "a load before");
        way(ends[1]);
        int done = way == by_closefrom || way == by_close_range ? 2 : ends[1];
        if (way != by_daemon)
            need(setsid() > 0, "setsid");
        need(all(at + page * PAGE, PAGE, 'A' + page % 26), "absent pages come in");
        memset(at + page * PAGE, '0' + page % 10, PAGE);
        need(msync(at, PAGES * PAGE, MS_SYNC) == 0, "msync");
        int again = open_or_fail(path, O_RDWR);
        need(pwrite(again, "again", 5, (page + 1) * PAGE) == 5, "pwrite");
        need(memcmp(at + (page + 1) * PAGE, "again", 5) == 0, "the mapping shows it");
        need(close(again) == 0, "close");
        need(write(done, "d", 1) == 1, "write");
        _exit(0);
    }
    close(ends[1]);
    char byte = 0;
    need(read(ends[0], &byte, 1) == 1, "the child did not come to its end");
    close(ends[0]);
    check(wait_for(child) == 0, sentence);
}

static void first_half(void)
{
    int fd = make_pages(path, PAGES);
    need(fsync(fd) == 0, "fsync");
    close(fd);
}

static void second_half(void)
{
    goes_on("a daemon that closes by number goes on", by_loop, 3);
    goes_on("a daemon that calls closefrom goes on", by_closefrom, 11);
    goes_on("a daemon that calls close_range goes on", by_close_range, 19);
    goes_on("a daemon made by daemon(3) goes on", by_daemon, 27);
    on_a_terminal();

    int fd = open_or_fail(path, O_RDWR);
    char *at = map_or_fail(fd, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    pid_t child = fork();
    if (child == 0) {
        at[35 * PAGE] = 'T';
        raise(SIGTERM);
        _exit(9);
    }
    check(wait_for(child) == -SIGTERM, "SIGTERM ends a program that maps");
    check(at[35 * PAGE] == 'T', "and its store is there for others that map");
    int right = 1;
    for (int page = 3; page <= 27; page += 8)
        right &= all(at + page * PAGE, PAGE, '0' + page % 10) && memcmp(at + (page + 1) * PAGE, "again", 5) == 0;
    check(right, "what the daemons stored is there");
    need(unlink(path) == 0, "unlink");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    dir = command.dir;
    path = path_in(dir, "daemons");
    if (command.write)
        first_half();
    if (command.check)
        second_half();
    return 0;
}
