/* Record locks belong to a process: seen by others with its number, not inherited, gone with any close, deadlocks found. */
#include "program.h"

static int lock(int fd, int command, short type, off_t start, off_t length)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return fcntl(fd, command, &lock);
}

/* Who keeps another process from a lock on these bytes; 0 for nobody, -1 for an error. */
static pid_t holder(const char *path, off_t start, off_t length)
{
    int ends[2];
    pid_t found = -1;
    need(pipe(ends) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
        int fd = open(path, O_RDWR);
        pid_t pid = fd < 0 || fcntl(fd, F_GETLK, &lock) != 0 ? -1 : lock.l_type == F_UNLCK ? 0 : lock.l_pid;
        _exit(write(ends[1], &pid, sizeof pid) != sizeof pid);
    }
    need(wait_for(child) == 0 && read(ends[0], &found, sizeof found) == sizeof found, "the child's answer");
    close(ends[0]);
    close(ends[1]);
    return found;
}

static void nothing(int signal) { (void)signal; }

static void whose(const char *path, int fd)
{
    struct stat status;
    check(lock(fd, F_SETLK, F_WRLCK, 10, 10) == 0 && holder(path, 0, 0) == getpid(), "a lock is its process's");
    check(holder(path, 0, 10) == 0 && holder(path, 20, 0) == 0, "on its bytes and no others");
    pid_t child = fork();
    if (child == 0)
        _exit(!(lock(fd, F_SETLK, F_WRLCK, 10, 10) == -1 && (errno == EAGAIN || errno == EACCES)));
    check(wait_for(child) == 0, "a forked child has not inherited it");
    check(stat(path, &status) == 0 && access(path, R_OK) == 0 && truncate(path, PAGE) == 0
              && holder(path, 0, 0) == getpid(), "calls by name leave it");
    check(fsync(fd) == 0 && ftruncate(fd, 2 * PAGE) == 0 && holder(path, 0, 0) == getpid(), "so do calls by descriptor");
    close(dup(fd));
    check(holder(path, 0, 0) == 0, "closing a duplicate gives it up");
    check(lock(fd, F_SETLK, F_WRLCK, 0, 0) == 0 && holder(path, 1L << 61, 1) == getpid(), "to the end is to the very end");
    close(open_or_fail(path, O_RDONLY));
    check(holder(path, 0, 0) == 0, "closing any descriptor of the file gives it up");
    check(lock(fd, F_SETLK, F_WRLCK, 0, 0) == 0 && lock(fd, F_SETLK, F_UNLCK, 5, 5) == 0
              && holder(path, 5, 5) == 0 && holder(path, 10, 1) == getpid(), "a part of it can be given up");
    check(lock(fd, F_SETLK, F_RDLCK, 0, 0) == 0, "it can be made a shared one");
    check(lock(fd, F_SETLK, F_UNLCK, 0, 0) == 0 && holder(path, 0, 0) == 0, "and given up whole");
}

/* A child that takes a lock, says so, and waits to be killed. */
static pid_t locker(const char *path, off_t byte, int said)
{
    pid_t child = fork();
    if (child == 0) {
        int fd = open(path, O_RDWR);
        if (fd < 0 || lock(fd, F_SETLK, F_WRLCK, byte, 1) != 0 || write(said, "l", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    return child;
}

static void waiting(const char *path, int fd)
{
    char byte;
    int ends[2];
    struct sigaction action = {.sa_handler = nothing};
    need(pipe(ends) == 0 && sigaction(SIGALRM, &action, NULL) == 0, "pipe and sigaction");
    pid_t child = locker(path, 0, ends[1]);
    need(read(ends[0], &byte, 1) == 1, "the child's lock");
    check(holder(path, 0, 1) == child, "another process has the lock");
    alarm(1);
    check(lock(fd, F_SETLKW, F_WRLCK, 0, 1) == -1 && errno == EINTR, "a signal ends the wait for it");
    kill(child, SIGKILL);
    check(lock(fd, F_SETLKW, F_WRLCK, 0, 1) == 0, "its death gives it to who waits");
    wait_for(child);

    child = fork();
    if (child == 0) {
        int mine = open(path, O_RDWR);
        if (lock(mine, F_SETLK, F_WRLCK, 1, 1) != 0 || write(ends[1], "l", 1) != 1)
            _exit(1);
        int result = lock(mine, F_SETLKW, F_WRLCK, 0, 1);
        _exit(result == 0 ? 0 : errno == EDEADLK ? 2 : 1);
    }
    need(read(ends[0], &byte, 1) == 1, "the other child's lock");
    /* Whichever of the two closes the circle is told; the other goes on when that one gives way. */
    int told = lock(fd, F_SETLKW, F_WRLCK, 1, 1) == -1 && errno == EDEADLK;
    need(lock(fd, F_SETLK, F_UNLCK, 0, 0) == 0, "unlocking");
    check(wait_for(child) == (told ? 0 : 2), "in a circle of waiting processes one gets EDEADLK, and the other goes on");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "record_locks");
    if (command.write)
        close(make_pages(path, 2));
    if (!command.check)
        return 0;
    int fd = open_or_fail(path, O_RDWR), reader = open_or_fail(path, O_RDONLY);
    whose(path, fd);
    check(lock(reader, F_SETLK, F_WRLCK, 0, 1) == -1 && errno == EBADF, "an exclusive lock needs a file open for writing");
    check(lock(fd, F_SETLK, 77, 0, 1) == -1 && errno == EINVAL, "an unknown kind is EINVAL");
    check(lock(fd, F_SETLK, F_RDLCK, -1, 1) == -1 && errno == EINVAL, "so is a negative offset");
    waiting(path, fd);
    char *map = map_or_fail(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    check(lock(fd, F_SETLKW, F_WRLCK, 0, 0) == 0 && (map[7] = 'm') && lock(fd, F_SETLKW, F_UNLCK, 0, 0) == 0,
          "what is stored under a lock");
    char bytes[8];
    check(pread(reader, bytes, 8, 0) == 8 && memcmp(bytes, "AAAAAAAm", 8) == 0, "is there after it");
    return unlink(path) != 0;
}
