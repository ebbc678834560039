/* execveat and fexecve: a path is looked for in the directory that is given, whatever lies in the working directory by that name. */
#include "program.h"
#include <sys/syscall.h>

static char self[PATH_MAX], *name;
static int directory, number;

/* Which of the ways executes it; 99 behind one that fails. */
static void execute(int way)
{
    char *const arguments[] = {self, "executed", NULL}, *const environment[] = {"VALUE=7", NULL};
    if (way == 0)
        execveat(directory, name, arguments, environment, 0);
    else if (way == 1)
        syscall(SYS_execveat, directory, name, arguments, environment, 0);
    else if (way == 2)
        execveat(AT_FDCWD, self, arguments, environment, 0);
    else if (way == 3)
        execveat(number, "", arguments, environment, AT_EMPTY_PATH);
    else if (way == 4)
        fexecve(number, arguments, environment);
    _exit(99);
}

static int executed(int way)
{
    pid_t child = fork();
    if (child == 0)
        execute(way);
    return wait_for(child);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "executed") == 0)
        return atoi(getenv("VALUE"));
    struct command command = command_line(argc, argv);
    need(readlink("/proc/self/exe", self, sizeof self - 1) > 0, "readlink");
    char *place = strdup(self);
    name = strrchr(place, '/');
    *name++ = 0;
    if (command.write) {
        need(chdir(command.dir) == 0, "chdir");
        close(make_pages(name, 1)); /* of the same name, and no program */
    }
    if (!command.check)
        return 0;
    need(chdir(command.dir) == 0 && access(name, F_OK) == 0, "chdir");
    directory = open_or_fail(place, O_RDONLY | O_DIRECTORY);
    number = open_or_fail(self, O_RDONLY);
    check(executed(0) == 7, "execveat from a directory on");
    check(executed(1) == 7, "by number");
    check(executed(2) == 7, "by an absolute path");
    check(executed(3) == 7, "by a descriptor and an empty path");
    check(executed(4) == 7, "fexecve");
    close(directory);
    directory = open_or_fail(command.dir, O_RDONLY | O_DIRECTORY);
    check(executed(0) == 99 && executed(1) == 99, "from its own directory on, the other file is found, which is no program");
    name = "nothing";
    check(execveat(directory, name, (char *[]){name, NULL}, NULL, 0) == -1 && errno == ENOENT, "what is not there");
    check(fexecve(-1, (char *[]){name, NULL}, (char *[]){NULL}) == -1 && (errno == EBADF || errno == EINVAL), "no descriptor");
    return unlink(strrchr(self, '/') + 1) != 0;
}
