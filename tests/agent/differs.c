/*
 * differs FILE: what the kernel's files give and a region does not, each with a word for its answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { LENGTH = 4 << 20 };

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    FILE *file = fopen(argv[1], "w+");
    if (file == NULL)
        return 2;
    fputs("narrow\n", file);
    fclose(file);
    int fd = open(argv[1], O_RDWR);
    if (fd < 0 || ftruncate(fd, LENGTH) != 0)
        return 2;
    char *map = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return 2;
    map[LENGTH / 2] = 'x';
    int collapsed = madvise(map, LENGTH, MADV_COLLAPSE);
    printf("MADV_COLLAPSE %s\n", collapsed == 0 ? "ok" : strerrorname_np(errno));
    printf("and holds %s\n", memcmp(map, "narrow\n", 8) == 0 && map[LENGTH / 2] == 'x' ? "what it held" : "something else");
    return 0;
}
