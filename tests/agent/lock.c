/*
 * lock KIND FILE BYTE: takes a lock of that kind, shows the byte that it then loads, stores BYTE, gives the lock up, and is killed at
 * once: whatever is on the server afterwards went there with the lock.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

static int record(int fd, int command, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
    return fcntl(fd, command, &lock);
}

static int turn(const char *kind, int fd, int take)
{
    if (strcmp(kind, "record") == 0)
        return record(fd, F_SETLKW, take ? F_WRLCK : F_UNLCK);
    if (strcmp(kind, "description") == 0)
        return record(fd, F_OFD_SETLKW, take ? F_WRLCK : F_UNLCK);
    if (strcmp(kind, "file") == 0)
        return flock(fd, take ? LOCK_EX : LOCK_UN);
    return lockf(fd, take ? F_LOCK : F_ULOCK, 10);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int fd = open(argv[2], O_RDWR);
    char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || map == MAP_FAILED || turn(argv[1], fd, 1) != 0)
        return 2;
    printf("%c\n", map[0]);
    fflush(stdout);
    map[0] = argv[3][0];
    if (turn(argv[1], fd, 0) != 0)
        return 2;
    raise(SIGKILL);
    return 2;
}
