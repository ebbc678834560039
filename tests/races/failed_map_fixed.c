/*
 * A mmap with MAP_FIXED that is refused leaves what was there.
 *
 *     failed_map_fixed FILE
 */
#include "race.h"

static void try(const char *what, char *base, int fd, off_t offset)
{
    void *map = mmap(base, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, offset);
    printf("%s: %s, then %.5s\n", what, map == MAP_FAILED ? strerrorname_np(errno) : "mapped", base + 3 * PAGE);
}

int main(int argc, char **argv)
{
    must(argc == 2);
    int fd = open(argv[1], O_RDWR | O_CREAT, 0600), reader = open(argv[1], O_RDONLY);
    must(fd >= 0 && reader >= 0 && ftruncate(fd, 16 * PAGE) == 0);
    char *base = shared(fd, 0, 16 * PAGE);
    memcpy(base + 3 * PAGE, "there", 5);
    try("an offset inside a page", base, fd, 1);
    try("a descriptor that is none", base, -1, 0);
    try("a store through a descriptor that only reads", base, reader, 0);
    return 0;
}
