/*
 * O_DIRECTORY takes no mode: what lies where a third argument would be is not looked at.
 *
 *     open_directory FILE
 */
#include "race.h"

static void try(const char *what, const char *path, int flags)
{
    int (*volatile call)(const char *, int, ...) = open;
    int fd = call(path, flags, 0xfffffff1);
    printf("%s: %s\n", what, fd < 0 ? strerrorname_np(errno) : "open");
}

int main(int argc, char **argv)
{
    must(argc == 2);
    char missing[512];
    snprintf(missing, sizeof missing, "%s-missing", argv[1]);
    int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    must(fd >= 0);
    try("a file", argv[1], O_RDONLY | O_DIRECTORY);
    try("nothing", missing, O_RDONLY | O_DIRECTORY);
    try("a file, without it", argv[1], O_RDONLY);
    return 0;
}
