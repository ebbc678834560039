/* A file as standard input, of a program that was started with it and of one behind a shell's "<". */
#include "program.h"

/* What the started program does: it looks at descriptor 0 in every way it can. */
static int reader(void)
{
    char bytes[8];
    int sum = 0, byte;
    check(read(STDIN_FILENO, bytes, 4) == 4 && memcmp(bytes, "AAAA", 4) == 0, "read of descriptor 0");
    check(pread(STDIN_FILENO, bytes, 4, 3 * PAGE - 2) == 4 && memcmp(bytes, "CCDD", 4) == 0, "pread of it");
    check(lseek(STDIN_FILENO, 0, SEEK_END) == 20 * PAGE && lseek(STDIN_FILENO, 0, SEEK_SET) == 0, "lseek");
    const char *map = map_or_fail(STDIN_FILENO, 20 * PAGE, PROT_READ, MAP_SHARED);
    check(map[19 * PAGE] == 'T', "a mapping of it");
    while ((byte = getchar()) != EOF)
        sum += byte - 'A';
    check(sum == 190 * PAGE, "stdio reads all of it");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "reader") == 0)
        return reader();
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "stdin_redirect_read");
    if (command.write)
        check(close(make_pages(path, 20)) == 0, "the file is written");
    if (!command.check)
        return 0;

    pid_t child = fork();
    if (child == 0) {
        int fd = open(path, O_RDONLY);
        if (fd >= 0 && dup2(fd, STDIN_FILENO) == STDIN_FILENO && close(fd) == 0)
            execl("/proc/self/exe", argv[0], "reader", (char *)NULL);
        _exit(99);
    }
    check(wait_for(child) == 0, "opened, put at 0 by dup2, exec");
    child = fork();
    if (child == 0) {
        char self[PATH_MAX] = "";
        need(readlink("/proc/self/exe", self, sizeof self - 1) > 0, "readlink");
        execl("/bin/sh", "sh", "-c", "exec \"$1\" reader < \"$2\"", "sh", self, path, (char *)NULL);
        _exit(99);
    }
    check(wait_for(child) == 0, "opened by a shell's \"<\"");
    return unlink(path) != 0;
}
