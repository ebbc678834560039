/* What open makes, empties and refuses. */
#include "program.h"

static int refuses(const char *path, int flags, int with)
{
    return open(path, flags, 0600) == -1 && errno == with;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "open_flags"), *other = path_in(command.dir, "open_flags_mode");
    struct stat status;
    if (command.write) {
        close(make_pages(path, 3));
        umask(027);
        unlink(other);
        int fd = open(other, O_RDWR | O_CREAT | O_EXCL, 0666);
        check(fd >= 0 && fstat(fd, &status) == 0 && (status.st_mode & 07777) == 0640, "mode, less umask");
        check(S_ISREG(status.st_mode) && status.st_size == 0 && status.st_nlink == 1, "a new file is empty");
        close(fd);
    }
    if (!command.check)
        return 0;

    char name[300];
    memset(name, 'n', sizeof name);
    name[256] = 0;
    check(stat(other, &status) == 0 && (status.st_mode & 07777) == 0640, "the mode stays");
    check(refuses(path, O_RDWR | O_CREAT | O_EXCL, EEXIST), "O_EXCL of what exists is EEXIST");
    check(refuses(path_in(command.dir, "none"), O_RDWR, ENOENT), "without O_CREAT ENOENT");
    check(refuses(path_in(command.dir, "none/file"), O_RDWR | O_CREAT, ENOENT), "in no directory ENOENT");
    check(refuses(path_in(path, "file"), O_RDWR | O_CREAT, ENOTDIR), "below a file ENOTDIR");
    check(refuses(path, O_RDONLY | O_DIRECTORY, ENOTDIR), "O_DIRECTORY of a file ENOTDIR");
    check(refuses(command.dir, O_RDWR, EISDIR), "writing a directory EISDIR");
    check(refuses(command.dir, O_WRONLY | O_CREAT, EISDIR), "creating one EISDIR");
    check(refuses(path_in(command.dir, name), O_RDWR | O_CREAT, ENAMETOOLONG), "256 bytes ENAMETOOLONG");
    check(refuses("", O_RDONLY, ENOENT), "no name ENOENT");
    name[255] = 0;
    int fd = open(path_in(command.dir, name), O_RDWR | O_CREAT, 0600);
    check(fd >= 0 && unlink(path_in(command.dir, name)) == 0, "255 bytes are a name");
    fd = open(path, O_RDWR | O_CREAT, 0600);
    check(fd >= 0 && lseek(fd, 0, SEEK_END) == 3 * PAGE, "O_CREAT of what exists opens it as it is");
    int again = open(path, O_WRONLY | O_TRUNC);
    check(again >= 0 && fstat(fd, &status) == 0 && status.st_size == 0, "O_TRUNC empties it for all");
    check(ftruncate(fd, PAGE) == 0 && pread(fd, name, 100, 0) == 100 && all(name, 100, 0),
          "and what it held never comes back");
    fd = creat(path, 0600);
    check(fd >= 0 && fstat(fd, &status) == 0 && status.st_size == 0, "creat empties it too");
    return unlink(path) != 0 || unlink(other) != 0;
}
