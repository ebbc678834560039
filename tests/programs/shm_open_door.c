/* POSIX shared memory: shm_open, shared between processes, gone with shm_unlink. DIR is not used. */
#include "program.h"

static const char NAME[] = "/netmem.shm_open_door";

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    if (command.write) {
        shm_unlink(NAME);
        int fd = shm_open(NAME, O_RDWR | O_CREAT | O_EXCL, 0600);
        check(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0, "shm_open makes it, close-on-exec");
        check(shm_open(NAME, O_RDWR | O_CREAT | O_EXCL, 0600) == -1 && errno == EEXIST, "again is EEXIST");
        need(ftruncate(fd, 4 * PAGE) == 0, "ftruncate");
        char *map = map_or_fail(fd, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
        check(all(map, 4 * PAGE, 0), "new memory is zeros");
        strcpy(map + PAGE, "shared");
        pid_t child = fork();
        if (child == 0) {
            int own = shm_open(NAME, O_RDWR, 0);
            char *same = map_or_fail(own, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
            same[2 * PAGE] = 'c';
            _exit(strcmp(same + PAGE, "shared"));
        }
        check(wait_for(child) == 0 && map[2 * PAGE] == 'c', "a child opens the same memory");
        check(msync(map, 4 * PAGE, MS_SYNC) == 0 && munmap(map, 4 * PAGE) == 0 && close(fd) == 0, "let go");
    }
    if (!command.check)
        return 0;

    struct stat status;
    int fd = shm_open(NAME, O_RDONLY, 0);
    check(fd >= 0 && fstat(fd, &status) == 0 && status.st_size == 4 * PAGE, "the next process finds it");
    char *map = map_or_fail(fd, 4 * PAGE, PROT_READ, MAP_SHARED);
    check(strcmp(map + PAGE, "shared") == 0 && map[2 * PAGE] == 'c', "with what was stored");
    check(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES, "and read-only");
    check(shm_unlink(NAME) == 0 && shm_open(NAME, O_RDWR, 0) == -1 && errno == ENOENT, "shm_unlink works");
    check(strcmp(map + PAGE, "shared") == 0, "and leaves the mapping");
    check(shm_unlink(NAME) == -1 && errno == ENOENT, "a second shm_unlink is ENOENT");
    return 0;
}
