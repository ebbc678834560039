/* Directories: made, listed and removed as on any file system. */
#include "program.h"
#include <dirent.h>

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void list(const char *dir)
{
    struct dirent **entries;
    int count = scandir(dir, &entries, NULL, by_name);
    need(count >= 0, "scandir");
    for (int i = 0; i < count; i++) {
        struct stat status;
        need(stat(path_in(dir, entries[i]->d_name), &status) == 0, "stat of an entry");
        dprintf(STDOUT_FILENO, "    %s%s\n", entries[i]->d_name, S_ISDIR(status.st_mode) ? "/" : "");
        free(entries[i]);
    }
    free(entries);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s/mkdir_readdir_rmdir", command.dir);
    if (command.write) {
        check(mkdir(dir, 0700) == 0, "mkdir");
        check(mkdir(dir, 0700) == -1 && errno == EEXIST, "a second time is EEXIST");
        check(mkdir(path_in(dir, "no/such"), 0700) == -1 && errno == ENOENT, "without its parent is ENOENT");
        need(mkdir(path_in(dir, "beta"), 0700) == 0 && mkdir(path_in(dir, "alpha"), 0755) == 0, "mkdir");
        close(make_pages(path_in(dir, "gamma"), 1));
        close(make_pages(path_in(dir, "beta/inner"), 2));
        check(1, "two directories, a file, and one further down");
    }
    if (!command.check)
        return 0;

    struct stat status;
    list(dir);
    check(stat(path_in(dir, "beta/inner"), &status) == 0 && status.st_size == 2 * PAGE, "the inner file");
    check(stat(path_in(dir, "alpha"), &status) == 0 && S_ISDIR(status.st_mode), "a directory");
    check(rmdir(path_in(dir, "beta")) == -1 && errno == ENOTEMPTY, "rmdir of a full one is ENOTEMPTY");
    check(rmdir(path_in(dir, "gamma")) == -1 && errno == ENOTDIR, "of a file ENOTDIR");
    check(unlink(path_in(dir, "alpha")) == -1 && errno == EISDIR, "unlink of a directory is EISDIR");
    check(rename(path_in(dir, "beta"), path_in(dir, "delta")) == 0
              && access(path_in(dir, "delta/inner"), R_OK) == 0,
          "a directory is renamed with what is in it");
    check(unlink(path_in(dir, "delta/inner")) == 0 && rmdir(path_in(dir, "delta")) == 0, "emptied, it goes");
    check(rmdir(path_in(dir, "delta")) == -1 && errno == ENOENT, "and is gone");
    list(dir);
    check(unlink(path_in(dir, "gamma")) == 0 && rmdir(path_in(dir, "alpha")) == 0 && rmdir(dir) == 0,
          "all goes");
    return 0;
}
