/* A file as standard output: by dup2 and exec, by a shell's ">" and ">>", and through stdio. */
#include "program.h"

static int writer(const char *line)
{
    printf("%s", line); /* buffered, written at exit */
    return 0;
}

static int run_shell(const char *script, const char *path)
{
    char self[PATH_MAX] = "";
    need(readlink("/proc/self/exe", self, sizeof self - 1) > 0, "readlink");
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", script, "sh", self, path, (char *)NULL);
        _exit(99);
    }
    return wait_for(child);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "writer") == 0)
        return writer(argv[2]);
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "stdout_append");
    if (command.write) {
        check(run_shell("exec \"$1\" writer 'one\n' > \"$2\"", path) == 0, "a shell's \">\"");
        check(run_shell("exec \"$1\" writer 'two\n' >> \"$2\"", path) == 0, "a shell's \">>\"");
        check(run_shell("\"$1\" writer 'three\n' >> \"$2\"; echo four >> \"$2\"", path) == 0, "both in turn");
        pid_t child = fork();
        if (child == 0) {
            int fd = open(path, O_WRONLY | O_APPEND);
            if (fd >= 0 && dup2(fd, STDOUT_FILENO) == STDOUT_FILENO && close(fd) == 0)
                execl("/proc/self/exe", argv[0], "writer", "five\n", (char *)NULL);
            _exit(99);
        }
        check(wait_for(child) == 0, "O_APPEND, dup2, exec");
    }
    if (!command.check)
        return 0;

    char bytes[64];
    FILE *file = fopen(path, "a");
    check(file != NULL && fputs("six\n", file) >= 0 && fclose(file) == 0, "fopen \"a\", fputs, fclose");
    int fd = open_or_fail(path, O_RDONLY);
    check(read(fd, bytes, sizeof bytes) == 28, "28 bytes are there");
    check(memcmp(bytes, "one\ntwo\nthree\nfour\nfive\nsix\n", 28) == 0, "six lines in order");
    file = fopen(path, "r");
    check(file != NULL && fgets(bytes, sizeof bytes, file) != NULL && strcmp(bytes, "one\n") == 0
              && fseek(file, -4, SEEK_END) == 0 && fgets(bytes, sizeof bytes, file) != NULL
              && strcmp(bytes, "six\n") == 0, "fgets reads the first line and the last");
    fclose(file);
    return unlink(path) != 0;
}
