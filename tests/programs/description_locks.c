/* Locks of open file descriptions and of whole files: shared by dup and fork, gone with the last descriptor; lockf's sections. */
#include "program.h"

#include <sys/file.h>

static int ofd(int fd, int command, short type, off_t start, off_t length)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    int result = fcntl(fd, command, &lock);
    return command == F_OFD_GETLK && result == 0 ? lock.l_type : result;
}

static void descriptions(const char *path, int fd, int other)
{
    check(ofd(fd, F_OFD_SETLK, F_WRLCK, 0, 0) == 0, "a lock of the description, of the whole file");
    check(ofd(other, F_OFD_SETLK, F_WRLCK, 5, 1) == -1 && errno == EAGAIN, "keeps another description of this process away");
    check(ofd(other, F_OFD_GETLK, F_WRLCK, 5, 1) == F_WRLCK, "which can ask who has it");
    int copy = dup(fd);
    check(ofd(copy, F_OFD_SETLK, F_WRLCK, 5, 1) == 0, "a duplicate has it too");
    close(open_or_fail(path, O_RDONLY));
    check(ofd(other, F_OFD_SETLK, F_RDLCK, 5, 1) == -1, "no close of another descriptor gives it up");
    pid_t child = fork();
    if (child == 0)
        _exit(ofd(fd, F_OFD_SETLK, F_WRLCK, 5, 1) != 0);
    check(wait_for(child) == 0, "a forked child has it too");
    check(ofd(other, F_OFD_SETLK, F_RDLCK, 5, 1) == -1, "and its end does not give it up");
    check(ofd(copy, F_OFD_SETLK, F_UNLCK, 0, 0) == 0 && ofd(other, F_OFD_SETLK, F_RDLCK, 5, 1) == 0, "unlocked by one, it is free");
    check(ofd(fd, F_OFD_SETLK, F_RDLCK, 5, 1) == 0 && ofd(fd, F_OFD_SETLK, F_WRLCK, 5, 1) == -1, "shared locks keep exclusive ones away");
    check(ofd(other, F_OFD_SETLK, F_UNLCK, 0, 0) == 0 && ofd(fd, F_OFD_SETLK, F_UNLCK, 0, 0) == 0, "until they are gone");
    close(copy);
}

static void whole(const char *path, int fd, int other)
{
    check(flock(fd, LOCK_EX) == 0 && flock(other, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK, "flock keeps another description away");
    int copy = dup(fd);
    check(flock(copy, LOCK_SH) == 0 && flock(other, LOCK_SH | LOCK_NB) == 0, "a duplicate can make it shared");
    check(flock(fd, LOCK_UN) == 0 && flock(other, LOCK_EX | LOCK_NB) == 0, "and one unlock is enough");
    check(flock(other, LOCK_UN) == 0 && flock(copy, LOCK_EX) == 0, "it can be taken again");
    int ends[2];
    char byte;
    need(pipe(ends) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        close(ends[1]);
        _exit(read(ends[0], &byte, 1) != 0);
    }
    close(fd);
    close(copy);
    check(flock(other, LOCK_EX | LOCK_NB) == -1, "a child keeps it when its parent's descriptors are closed");
    close(ends[1]);
    check(wait_for(child) == 0 && flock(other, LOCK_EX | LOCK_NB) == 0, "and gives it up when it ends");
    check(flock(other, 77) == -1 && errno == EINVAL, "an unknown operation is EINVAL");
    int reader = open_or_fail(path, O_RDONLY);
    check(flock(other, LOCK_UN) == 0 && flock(reader, LOCK_EX | LOCK_NB) == 0, "a read-only descriptor can have an exclusive one");
    close(reader);
    check(flock(other, LOCK_EX | LOCK_NB) == 0 && flock(other, LOCK_UN) == 0, "its close gives it up");
}

static int free_for_others(const char *path, off_t at, off_t length)
{
    pid_t child = fork();
    if (child == 0) {
        int fd = open(path, O_RDWR);
        _exit(fd < 0 || lseek(fd, at, SEEK_SET) != at || lockf(fd, F_TEST, length) != 0);
    }
    return wait_for(child) == 0;
}

static void sections(const char *path, int fd)
{
    check(lseek(fd, 100, SEEK_SET) == 100 && lockf(fd, F_LOCK, 10) == 0, "lockf locks from the offset on");
    check(!free_for_others(path, 105, 1) && free_for_others(path, 99, 1) && free_for_others(path, 110, 0), "as many bytes as it says");
    check(lseek(fd, 100, SEEK_SET) == 100 && lockf(fd, F_TLOCK, -10) == 0 && !free_for_others(path, 95, 1), "or backwards");
    check(lockf(fd, F_TEST, 0) == 0, "its own lock is not in its way");
    check(lseek(fd, 0, SEEK_SET) == 0 && lockf(fd, F_ULOCK, 0) == 0 && free_for_others(path, 0, 0), "zero bytes are all to the end");
    check(lockf(fd, 77, 0) == -1 && errno == EINVAL, "an unknown command is EINVAL");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "description_locks");
    if (command.write)
        close(make_pages(path, 2));
    if (!command.check)
        return 0;
    int fd = open_or_fail(path, O_RDWR), other = open_or_fail(path, O_RDWR);
    descriptions(path, fd, other);
    sections(path, other);
    whole(path, fd, other);
    return unlink(path) != 0;
}
