/*
 * away: becomes a daemon with a file mapped, stores there after its parent has gone, and commits by exiting.
 *
 *     away FILE FIFO
 *
 * The daemon holds FIFO open for writing until it has ended, and nothing else of its parent's.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, 8 * 4096) != 0)
        return 2;
    char *map = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return 2;
    memset(map, 'p', 4096);
    if (daemon(1, 0) != 0)
        return 2;
    int end = open(argv[2], O_WRONLY);
    memset(map + 4096, map[0] == 'p' ? 'd' : '?', 4096);
    int synced = msync(map, 8 * 4096, MS_SYNC);
    memset(map + 2 * 4096, synced == 0 ? 'e' : '!', 4096);
    return end < 0;
}
