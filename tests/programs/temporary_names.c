/* mkstemp and its kin, mkdtemp, mktemp: names that libc makes up; mknod of a plain file. */
#include "program.h"

static int filled(const char *template, const char *suffix)
{
    size_t length = strlen(template), tail = strlen(suffix);
    return strcmp(template + length - tail, suffix) == 0 && strncmp(template + length - tail - 6, "XXXXXX", 6) != 0;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    char a[PATH_MAX], b[PATH_MAX];
    struct stat status;
    if (!command.check)
        return 0;
    snprintf(a, sizeof a, "%s", path_in(command.dir, "temporaryXXXXXX"));
    snprintf(b, sizeof b, "%s", a);
    int fd = mkstemp(a), other = mkstemp(b);
    check(fd >= 0 && other >= 0 && filled(a, "") && filled(b, "") && strcmp(a, b) != 0, "mkstemp makes names of its own");
    check(fstat(fd, &status) == 0 && (status.st_mode & 07777) == 0600 && status.st_size == 0, "of empty files for oneself");
    check(write(fd, "data", 4) == 4 && stat(a, &status) == 0 && status.st_size == 4, "that can be written");
    check((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR && fcntl(fd, F_GETFD) == 0, "and read, and go through exec");
    close(fd), close(other);
    check(unlink(a) == 0 && unlink(b) == 0, "and removed");
    snprintf(a, sizeof a, "%s", path_in(command.dir, "tXXXXXX.txt"));
    fd = mkostemps(a, 4, O_CLOEXEC | O_APPEND);
    check(fd >= 0 && filled(a, ".txt") && fcntl(fd, F_GETFD) == FD_CLOEXEC && (fcntl(fd, F_GETFL) & O_APPEND),
          "mkostemps with a suffix and flags");
    close(fd), unlink(a);
    snprintf(a, sizeof a, "%s", path_in(command.dir, "tXXXXX"));
    check(mkstemp(a) == -1 && errno == EINVAL, "five Xs are too few");
    snprintf(a, sizeof a, "%s", path_in(command.dir, "none/tXXXXXX"));
    check(mkstemp(a) == -1 && errno == ENOENT, "the directory must be there");
    snprintf(a, sizeof a, "%s", path_in(command.dir, "dXXXXXX"));
    check(mkdtemp(a) == a && filled(a, "") && stat(a, &status) == 0 && S_ISDIR(status.st_mode)
              && (status.st_mode & 07777) == 0700, "mkdtemp makes a directory for oneself");
    check(mkdir(a, 0700) == -1 && errno == EEXIST && rmdir(a) == 0, "once");
    snprintf(a, sizeof a, "%s", path_in(command.dir, "mXXXXXX"));
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    check(mktemp(a) == a && filled(a, "") && access(a, F_OK) == -1, "mktemp finds a name that is free");
    need(chdir(command.dir) == 0, "chdir");
    char relative[] = "relativeXXXXXX";
    fd = mkstemp(relative);
    check(fd >= 0 && access(path_in(command.dir, relative), F_OK) == 0 && unlink(relative) == 0, "in the working directory");
    close(fd);
    umask(027);
    check(mknod("node", S_IFREG | 0666, 0) == 0 && stat("node", &status) == 0 && (status.st_mode & 07777) == 0640
              && status.st_size == 0, "mknod makes a plain file");
    check(mknod("node", S_IFREG | 0666, 0) == -1 && errno == EEXIST && unlink("node") == 0, "once");
    return 0;
}
