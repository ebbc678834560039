/*
 * many COUNT DIR: opens so many files one after the other, and says whether each of them left something among the mappings of the
 * process; then forks, and says how the child ended.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int mappings(void)
{
    int lines = 0, byte;
    FILE *maps = fopen("/proc/self/maps", "r");
    while ((byte = getc(maps)) != EOF)
        lines += byte == '\n';
    fclose(maps);
    return lines;
}

static int use(const char *directory, int number)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/f%d", directory, number);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    int wrote = fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0;
    if (!wrote)
        perror(path);
    return wrote;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int count = atoi(argv[1]), first = 150, status;
    for (int i = 0; i < first; i++)
        if (!use(argv[2], i))
            return 1;
    int before = mappings();
    for (int i = first; i < count; i++)
        if (!use(argv[2], i))
            return 1;
    /* Those that are kept for the next open change, and so do the gaps between them. */
    printf("mappings %s\n", mappings() < before + 400 ? "few" : "many");
    pid_t child = fork();
    if (child == 0)
        _exit(7);
    waitpid(child, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
    return 0;
}
