/* Relative paths that lead into the directory from outside, and out of it from inside. */
#include "program.h"

/* From a directory at depth `depth`, the way to an absolute path. */
static const char *way(const char *from, const char *to)
{
    static char out[4][PATH_MAX];
    static unsigned turn;
    char *path = out[turn++ % 4];
    path[0] = 0;
    for (const char *at = from; *at; at++)
        if (*at == '/' && at[1] != 0)
            strcat(path, "../");
    return strcat(path, to + 1);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    char start[512], dir[512], file[600], out[600], outer[600], bytes[8];
    need(getcwd(start, sizeof start) != NULL, "getcwd");
    snprintf(dir, sizeof dir, "%s/paths_in_and_out", command.dir);
    snprintf(file, sizeof file, "%s/file", dir);
    snprintf(out, sizeof out, "%s/paths_out", start);
    snprintf(outer, sizeof outer, "%s/paths_outer", start);
    if (command.write) {
        need(mkdir(dir, 0700) == 0, "mkdir");
        need(chdir("/") == 0, "chdir");
        int fd = open(file + 1, O_RDWR | O_CREAT | O_EXCL, 0600);
        check(fd >= 0 && write(fd, "inside", 6) == 6 && close(fd) == 0, "a file made from \"/\"");
    }
    if (!command.check)
        return 0;

    struct stat s;
    int root = open_or_fail("/", O_RDONLY | O_DIRECTORY);
    check(fstatat(root, file + 1, &s, 0) == 0 && s.st_size == 6, "fstatat from a descriptor of \"/\"");
    int fd = openat(root, dir + 1, O_RDONLY | O_DIRECTORY);
    check(fd >= 0 && fstatat(fd, "file", &s, AT_SYMLINK_NOFOLLOW) == 0, "openat from a descriptor of \"/\"");
    need(chdir(start) == 0, "chdir");
    check(access(way(start, file), R_OK) == 0, "\"..\" and in from elsewhere");
    need(chdir(dir) == 0, "chdir");
    check(access(way(dir, file), R_OK) == 0, "out and in again");
    fd = open(way(dir, out), O_RDWR | O_CREAT | O_EXCL, 0600);
    check(fd >= 0 && write(fd, "outside", 7) == 7, "a file made outside by a relative name");
    fd = open(out, O_RDONLY);
    check(fd >= 0 && read(fd, bytes, 7) == 7 && memcmp(bytes, "outside", 7) == 0, "is outside");
    check(stat(way(dir, out), &s) == 0 && s.st_size == 7, "stat of it");
    check(rename(way(dir, out), outer) == 0 && access(outer, R_OK) == 0, "rename from there");
    check(rename(outer, way(dir, out)) == 0 && access(out, R_OK) == 0, "rename to there");
    check(unlink(way(dir, out)) == 0 && access(out, F_OK) == -1, "unlink there");
    check(mkdir(way(dir, outer), 0700) == 0 && access(outer, R_OK) == 0, "mkdir there");
    check(rmdir(way(dir, outer)) == 0 && access(outer, R_OK) == -1, "rmdir there");
    check(chdir(way(dir, start)) == 0 && access(way(start, dir), R_OK) == 0, "chdir to there");
    return chdir(dir) != 0 || unlink("file") != 0 || chdir("..") != 0 || rmdir("paths_in_and_out") != 0;
}
