/* A stream whose writes fail says so, with the errno and how much went out, and goes on when they succeed again. */
#include "program.h"

static char bytes[70000];

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "stdio_write_fails");
    if (!command.check)
        return 0;
    FILE *file = fopen(path, "w");
    need(file != NULL, "fopen");
    int good = dup(fileno(file)), bad = open(path, O_RDONLY);
    need(good >= 0 && bad >= 0 && dup2(bad, fileno(file)) >= 0, "a descriptor that can't be written");
    memset(bytes, 'b', sizeof bytes);
    errno = 0;
    size_t went = fwrite(bytes, 1, sizeof bytes, file);
    check(went == 0 && errno == EBADF && ferror(file), "nothing of a long text goes out: EBADF");
    clearerr(file);
    errno = 0;
    check(fflush(file) == 0 || errno == EBADF, "what is left in the buffer is as it was");
    need(dup2(good, fileno(file)) >= 0, "dup2");
    clearerr(file);
    check(fwrite(bytes, 1, sizeof bytes, file) == sizeof bytes && fflush(file) == 0, "a good descriptor takes it");
    struct stat status;
    check(fclose(file) == 0 && stat(path, &status) == 0 && status.st_size >= (off_t)sizeof bytes, "all of it");
    close(good);
    close(bad);
    return unlink(path) != 0;
}
