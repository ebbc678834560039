/* _Fork, clone, vfork, posix_spawn, system, popen: children find the pages, and programs that are started find their arguments and
   their redirected descriptors. */
#include "program.h"
#include <sched.h>
#include <spawn.h>
#include <sys/syscall.h>

extern char **environ;
static char *map; /* 64 pages, which come in one by one */
static volatile size_t next_page;

static char *fresh_page(void)
{
    need(next_page < 64, "a page that was not touched");
    return map + next_page++ * PAGE;
}

static int fresh(void)
{
    size_t page = next_page;
    return fresh_page()[11] == (char)('A' + page % 26);
}

/* Text that lies across two pages of the file of which nobody touched anything: another process wrote it. */
static char *cold_text(const char *file, const char *text)
{
    size_t first = next_page;
    next_page += 2;
    need(first + 2 <= 64, "pages that were not touched");
    long at = (long)(first + 1) * PAGE - 4;
    pid_t child = fork();
    if (child == 0) {
        int fd = open(file, O_WRONLY);
        _exit(pwrite(fd, text, strlen(text) + 1, at) != (ssize_t)strlen(text) + 1);
    }
    need(wait_for(child) == 0, "pwrite");
    return map + at;
}

static int body(void *expected)
{
    if (!fresh())
        return 1;
    map[60 * PAGE + (intptr_t)expected] = 'c';
    return 40 + (int)(intptr_t)expected;
}

static char stack[65536];

static int content_is(const char *path, const char *text)
{
    char got[256] = "";
    int fd = open(path, O_RDONLY);
    ssize_t length = read(fd, got, sizeof got - 1);
    close(fd);
    return length == (ssize_t)strlen(text) && strcmp(got, text) == 0;
}

static void copies(void)
{
    pid_t child = _Fork();
    if (child == 0)
        _exit(body((void *)1));
    check(wait_for(child) == 41 && map[60 * PAGE + 1] == 'c', "_Fork: the child finds a page that nobody touched, and stores");
    child = clone(body, stack + sizeof stack, SIGCHLD, (void *)2);
    check(wait_for(child) == 42 && map[60 * PAGE + 2] == 'c', "clone, with memory of its own");
    child = clone(body, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)3);
    check(wait_for(child) == 43 && map[60 * PAGE + 3] == 'c', "clone, sharing the memory");
    child = vfork();
    if (child == 0)
        _exit(fresh() ? 44 : 1);
    check(wait_for(child) == 44 && fresh(), "vfork");
    child = fork();
    if (child == 0) {
        child = fork();
        if (child == 0)
            _exit(body((void *)5));
        _exit(wait_for(child));
    }
    check(wait_for(child) == 45 && map[60 * PAGE + 5] == 'c', "a child of a child");
    child = fork();
    if (child == 0) {
        map[60 * PAGE + 6] = 'c';
        raise(SIGKILL);
    }
    check(wait_for(child) == -SIGKILL && map[60 * PAGE + 6] == 'c' && fresh(), "one that is killed");
}

static void started(const char *dir, const char *file)
{
    const char *out = path_in(dir, "children_out"), *again = path_in(dir, "children_again");
    posix_spawn_file_actions_t actions;
    pid_t *child = (pid_t *)fresh_page();
    char *arguments[] = {cold_text(file, "sh"), cold_text(file, "-c"), cold_text(file, "echo \"$WORD\"; cat"), NULL};
    char *environment[] = {cold_text(file, "WORD=hello"), NULL};
    posix_spawn_file_actions_init(&actions);
    need(posix_spawn_file_actions_addopen(&actions, 1, out, O_WRONLY | O_CREAT | O_TRUNC, 0600) == 0, "addopen");
    need(posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) == 0, "addopen");
    check(posix_spawn(child, cold_text(file, "/bin/sh"), &actions, NULL, arguments, environment) == 0,
          "posix_spawn with arguments, environment and path in pages that nobody touched");
    pid_t pid = *child;
    check(wait_for(pid) == 0 && content_is(out, "hello\n"), "and its output in a file that it opened itself");
    posix_spawn_file_actions_destroy(&actions);

    posix_spawn_file_actions_init(&actions);
    need(posix_spawn_file_actions_addopen(&actions, 5, path_in(dir, "no-such-directory/x"), O_WRONLY | O_CREAT, 0600) == 0, "addopen");
    check(posix_spawnp(&pid, "true", &actions, NULL, arguments, environ) == ENOENT, "a file that can't be opened is its error");
    posix_spawn_file_actions_destroy(&actions);

    posix_spawn_file_actions_init(&actions);
    need(posix_spawn_file_actions_addopen(&actions, 0, out, O_RDONLY, 0) == 0, "addopen");
    need(posix_spawn_file_actions_addopen(&actions, 1, again, O_WRONLY | O_CREAT | O_EXCL, 0600) == 0, "addopen");
    char *copy[] = {"cat", NULL};
    check(posix_spawnp(&pid, "cat", &actions, NULL, copy, environ) == 0 && wait_for(pid) == 0 && content_is(again, "hello\n"),
          "posix_spawnp: another program reads it and makes a new one");
    check(posix_spawnp(&pid, "cat", &actions, NULL, copy, environ) == EEXIST, "O_EXCL of one that is there is its error");
    posix_spawn_file_actions_destroy(&actions);

    char command[3 * PATH_MAX];
    snprintf(command, sizeof command, "cat '%s' > '%s'; echo more >> '%s'", out, again, again);
    check(system(command) == 0 && content_is(again, "hello\nmore\n"), "system: the shell's redirections");
    FILE *pipe = popen(cold_text(file, "echo from popen"), "r");
    char line[64] = "";
    check(pipe != NULL && fgets(line, sizeof line, pipe) != NULL && strcmp(line, "from popen\n") == 0 && pclose(pipe) == 0,
          "popen, with its command in pages that nobody touched");
    unlink(out);
    unlink(again);
}

static void executed(const char *dir, const char *file)
{
    const char *out = path_in(dir, "children_exec");
    char *path = cold_text(file, "/bin/echo"), *word = cold_text(file, "word"), *more = cold_text(file, "more");
    pid_t child = fork();
    if (child == 0) {
        int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, 1);
        char *const *arguments = (char *[]){"echo", word, more, NULL};
        execve("/no/such/program", arguments, environ);
        if (errno != ENOENT || !fresh())
            _exit(99);
        execve(path, arguments, environ);
        _exit(98);
    }
    check(wait_for(child) == 0 && content_is(out, "word more\n"), "execve after one that failed, into a file, with arguments from there");
    child = vfork();
    if (child == 0) {
        int fd = open("/dev/null", O_WRONLY);
        dup2(fd, 1);
        execl("/bin/echo", "echo", word, (char *)NULL);
        _exit(98);
    }
    check(wait_for(child) == 0 && fresh(), "vfork and execl");
    child = fork();
    if (child == 0) {
        int fd = open(out, O_WRONLY | O_APPEND), self = open("/bin/echo", O_RDONLY);
        dup2(fd, 1);
        fexecve(self, (char *[]){"echo", "by", "number", NULL}, environ);
        _exit(98);
    }
    check(wait_for(child) == 0 && content_is(out, "word more\nby number\n"), "fexecve, appending");
    child = fork();
    if (child == 0) {
        int fd = open(out, O_WRONLY | O_APPEND);
        dup2(fd, 1);
        execveat(AT_FDCWD, "/bin/echo", (char *[]){"echo", "at", NULL}, environ, 0);
        _exit(98);
    }
    check(wait_for(child) == 0 && content_is(out, "word more\nby number\nat\n"), "execveat");
    unlink(out);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "children_of_every_kind");
    if (command.write)
        close(make_pages(path, 64));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    map = map_or_fail(fd, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    copies();
    started(command.dir, path);
    executed(command.dir, path);
    return unlink(path) != 0;
}
