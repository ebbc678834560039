/* Relative names, the working directory, directory descriptors, "." and "..": the kernel's rules. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    char dir[PATH_MAX], here[PATH_MAX], bytes[8];
    snprintf(dir, sizeof dir, "%s/relative_paths_chdir", command.dir);
    if (command.write) {
        need(mkdir(dir, 0700) == 0, "mkdir");
        check(chdir(dir) == 0, "chdir");
        close(make_pages("file", 3));
        need(mkdir("inner", 0700) == 0, "mkdir");
        close(make_pages("inner/../inner/./deep", 2));
        check(access("inner/deep", R_OK) == 0, "files made by relative names");
    }
    if (!command.check)
        return 0;

    need(chdir("/") == 0 && chdir(dir) == 0, "chdir");
    check(getcwd(here, sizeof here) != NULL && strcmp(strrchr(here, '/'), "/relative_paths_chdir") == 0,
          "getcwd ends in the directory");
    int fd = open_or_fail("file", O_RDWR);
    check(pread(fd, bytes, 4, 2 * PAGE - 2) == 4 && memcmp(bytes, "BBCC", 4) == 0, "a relative name");
    int inner = open_or_fail("inner", O_RDONLY | O_DIRECTORY), deep = openat(inner, "deep", O_RDONLY);
    check(deep >= 0 && pread(deep, bytes, 1, PAGE) == 1 && bytes[0] == 'B', "openat");
    int up = openat(inner, "../file", O_RDONLY);
    check(up >= 0 && pread(up, bytes, 1, PAGE) == 1 && bytes[0] == 'B', "openat through \"..\"");
    check(fchdir(inner) == 0 && access("deep", R_OK) == 0 && access("file", R_OK) == -1, "fchdir");
    check(open("../file", O_RDONLY) >= 0, "\"..\" from there");
    check(chdir("..") == 0 && access("inner/deep", R_OK) == 0, "chdir(\"..\")");
    char *map = map_or_fail(fd, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    map[0] = 'r';
    check(msync(map, 3 * PAGE, MS_SYNC) == 0 && read(fd, bytes, 2) == 2 && memcmp(bytes, "rA", 2) == 0,
          "a mapping of what was opened by a relative name");
    check(unlinkat(inner, "deep", 0) == 0 && unlink("./file") == 0 && rmdir("inner") == 0,
          "unlink by relative names");
    check(mkdirat(AT_FDCWD, "again", 0700) == 0 && unlinkat(AT_FDCWD, "again", AT_REMOVEDIR) == 0,
          "mkdirat and AT_REMOVEDIR");
    return chdir("/") != 0 || rmdir(dir) != 0;
}
