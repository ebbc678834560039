/* Standard streams on files: freopen, a number put under a stream by dup2, perror, popen, and freopen of other streams. */
#include "program.h"

static const char *path, *other;

static int holds(const char *file, const char *text)
{
    char bytes[512] = "";
    int fd = open_or_fail(file, O_RDONLY);
    ssize_t count = read(fd, bytes, sizeof bytes - 1);
    close(fd);
    if (count != (ssize_t)strlen(text) || memcmp(bytes, text, strlen(text)) != 0) {
        dprintf(STDERR_FILENO, "[%s]\n", bytes);
        return 0;
    }
    return 1;
}

/* In a child, so that this process keeps its own standard output. */
static int in_child(void (*body)(void))
{
    pid_t child = fork();
    if (child == 0) {
        body();
        exit(0);
    }
    return wait_for(child) == 0;
}

static void reopened(void)
{
    if (freopen(path, "w", stdout) != stdout)
        exit(1);
    printf("printed %d\n", 1);
    fflush(stdout);
    if (fsync(fileno(stdout)) != 0 || fileno(stdout) != 1 || system("echo from a shell") != 0)
        exit(2);
    puts("and more");
}

static void appended(void)
{
    if (freopen(path, "a", stdout) != stdout || freopen(path, "a", stderr) != stderr)
        exit(1);
    printf("appended\n");
    fflush(stdout);
    errno = ENOENT;
    perror("perror");
}

static void under(void)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || dup2(fd, 1) != 1 || close(fd) != 0)
        exit(1);
    printf("under the stream\n");
}

static void input(void)
{
    char line[64];
    if (freopen(path, "r", stdin) != stdin || fgets(line, sizeof line, stdin) == NULL || strcmp(line, "printed 1\n") != 0)
        exit(1);
    if (scanf("from %63s", line) != 1 || strcmp(line, "a") != 0)
        exit(2);
}

static void input_under(void)
{
    char line[64];
    int fd = open(path, O_RDONLY);
    if (fd < 0 || dup2(fd, 0) != 0 || close(fd) != 0 || fgets(line, sizeof line, stdin) == NULL || strcmp(line, "printed 1\n") != 0)
        exit(1);
}

static void streams(void)
{
    char line[64];
    FILE *file = fopen(path, "r");
    check(freopen(other, "w+", file) == file && fputs("other", file) >= 0 && fseek(file, 1, SEEK_SET) == 0 && fgetc(file) == 't'
              && fclose(file) == 0 && holds(other, "other"), "freopen of a stream to another file");
    file = fopen("/dev/null", "w");
    check(freopen(other, "r", file) == file && fgets(line, sizeof line, file) != NULL && strcmp(line, "other") == 0
              && fputc('x', file) == EOF && fclose(file) == 0, "from elsewhere");
    file = fopen(other, "a");
    fputs("!", file);
    check(freopen("/dev/null", "r", file) == file && fgetc(file) == EOF && holds(other, "other!") && fclose(file) == 0, "to elsewhere");
    file = fopen(other, "r");
    check(freopen(NULL, "r+", file) == file && fputs("O", file) >= 0 && fclose(file) == 0 && holds(other, "Other!"), "to the same file");
    FILE *pipe = popen("cat", "w");
    need(pipe != NULL && pclose(pipe) == 0, "popen");
    char text[PATH_MAX + 32];
    snprintf(text, sizeof text, "cat > '%s'", other);
    pipe = popen(text, "w");
    check(pipe != NULL && fputs("through a pipe", pipe) >= 0 && pclose(pipe) == 0 && holds(other, "through a pipe"), "popen's shell writes there");
    snprintf(text, sizeof text, "cat < '%s'", other);
    pipe = popen(text, "r");
    check(pipe != NULL && fgets(line, sizeof line, pipe) != NULL && strcmp(line, "through a pipe") == 0 && pclose(pipe) == 0, "and reads");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    path = path_in(command.dir, "stdio_standard");
    other = path_in(command.dir, "stdio_other");
    if (command.write) {
        check(in_child(reopened), "freopen of stdout");
        check(holds(path, "printed 1\nfrom a shell\nand more\n"), "what it and its children print is in the file, in order");
    }
    if (!command.check)
        return 0;
    check(holds(path, "printed 1\nfrom a shell\nand more\n"), "and kept");
    check(in_child(input), "freopen of stdin");
    check(in_child(input_under), "a file put under stdin");
    check(in_child(appended) && holds(path, "printed 1\nfrom a shell\nand more\nappended\nperror: No such file or directory\n"),
          "stdout and stderr appended to one file");
    check(in_child(under) && holds(path, "under the stream\n"), "a file put under stdout");
    streams();
    return unlink(path) != 0 || unlink(other) != 0;
}
