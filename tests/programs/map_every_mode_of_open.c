/* mmap of every mode of open, with every protection and kind of sharing: what works, and which errno what doesn't gives. */
#include "program.h"

static const struct {
    const char *name;
    int value;
} modes[] = {{"O_RDONLY", O_RDONLY}, {"O_WRONLY", O_WRONLY}, {"O_RDWR", O_RDWR}, {"O_PATH", O_PATH}},
  prots[] = {{"none", PROT_NONE}, {"read", PROT_READ}, {"write", PROT_WRITE}, {"both", PROT_READ | PROT_WRITE}},
  kinds[] = {{"shared", MAP_SHARED}, {"private", MAP_PRIVATE}, {"validated", MAP_SHARED_VALIDATE}};

static void try(const char *what, int fd, size_t length, int prot, int flags, off_t offset)
{
    char *at = mmap(NULL, length, prot, flags, fd, offset);
    tell(what, at == MAP_FAILED);
    if (at == MAP_FAILED)
        return;
    if (prot & PROT_READ)
        need(length < 2 * PAGE || at[PAGE] == 'B', "the second page");
    munmap(at, length);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "map_every_mode_of_open");
    char what[100];
    if (command.write)
        close(make_pages(path, 2));
    if (!command.check)
        return 0;
    for (unsigned mode = 0; mode < 4; mode++) {
        int fd = open_or_fail(path, modes[mode].value);
        for (unsigned i = 0; i < 12; i++) {
            snprintf(what, sizeof what, "%s %s %s", modes[mode].name, kinds[i / 4].name, prots[i % 4].name);
            try(what, fd, 2 * PAGE, prots[i % 4].value, kinds[i / 4].value, 0);
        }
        dprintf(STDOUT_FILENO, "ok: what is wrong with the arguments comes first, %s:\n", modes[mode].name);
        try("no length", fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
        try("an offset inside a page", fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 1);
        try("too long", fd, SIZE_MAX - PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
        try("behind the last byte that a file can have", fd, PAGE, PROT_READ, MAP_SHARED, INT64_MAX & ~(PAGE - 1L));
        try("a negative offset", fd, 2 * PAGE, PROT_READ, MAP_SHARED, -PAGE);
        try("neither shared nor private", fd, PAGE, PROT_READ, 0, 0);
        try("MAP_SYNC", fd, PAGE, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, 0);
        close(fd);
    }
    int dir = open_or_fail(command.dir, O_RDONLY | O_DIRECTORY);
    try("a directory", dir, PAGE, PROT_READ, MAP_SHARED, 0);
    try("a directory, privately", dir, PAGE, PROT_READ, MAP_PRIVATE, 0);
    close(dir);
    try("a closed one", dir, PAGE, PROT_READ, MAP_SHARED, 0);
    return unlink(path) != 0;
}
