/* Names that are not there, are of the other kind, or are in the way: each call's errno. */
#include "program.h"

#include <dirent.h>
#include <ftw.h>

static const char *dir;

static const char *in(const char *name) { return path_in(dir, name); }

/* The name of the errno that a call left, or "ok"; a descriptor is closed. */
static const char *says(long result)
{
    if (result > 2)
        close((int)result);
    return result < 0 ? strerrorname_np(errno) : "ok";
}

static void line(const char *call, const char *name, const char *result)
{
    dprintf(STDOUT_FILENO, "%s %s: %s\n", call, name, result);
}

static void looking(const char *name)
{
    struct stat status;
    char bytes[16];
    const char *path = in(name);
    line("open", name, says(open(path, O_RDONLY)));
    line("open to write", name, says(open(path, O_WRONLY)));
    line("open to make", name, says(open(path, O_RDWR | O_CREAT, 0600)));
    line("open to make anew", name, says(open(path, O_RDWR | O_CREAT | O_EXCL, 0600)));
    line("open as a directory", name, says(open(path, O_RDONLY | O_DIRECTORY)));
    line("open without links", name, says(open(path, O_RDONLY | O_NOFOLLOW)));
    line("open as a path", name, says(open(path, O_PATH)));
    line("stat", name, says(stat(path, &status)));
    line("lstat", name, says(lstat(path, &status)));
    line("access", name, says(access(path, F_OK)));
    line("truncate", name, says(truncate(path, 0)));
    line("truncate below zero", name, says(truncate(path, -1)));
    line("chmod", name, says(chmod(path, 0700)));
    line("readlink", name, says(readlink(path, bytes, sizeof bytes)));
    DIR *stream = opendir(path);
    line("opendir", name, stream != NULL ? "ok" : strerrorname_np(errno));
    if (stream != NULL)
        closedir(stream);
    int at = chdir(path);
    line("chdir", name, says(at));
    need(chdir("/") == 0, "chdir");
}

static void making(const char *name)
{
    line("mkdir", name, says(mkdir(in(name), 0700)));
    line("rmdir", name, says(rmdir(in(name))));
    line("unlink", name, says(unlink(in(name))));
}

static int gone(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    (void)status, (void)kind, (void)at;
    return remove(path);
}

static void again(void)
{
    need(nftw(dir, gone, 8, FTW_DEPTH | FTW_PHYS) == 0 && mkdir(dir, 0700) == 0, "an empty directory");
    close(open_or_fail(in("file"), O_RDWR | O_CREAT));
    close(open_or_fail(in("other"), O_RDWR | O_CREAT));
    need(mkdir(in("empty"), 0700) == 0 && mkdir(in("full"), 0700) == 0, "mkdir");
    close(open_or_fail(in("full/file"), O_RDWR | O_CREAT));
}

static void renaming(const char *from, const char *to)
{
    char both[128];
    snprintf(both, sizeof both, "%s to %s", from, to);
    again();
    line("rename", both, says(rename(in(from), in(to))));
    again();
    line("rename without replacing", both, says(renameat2(AT_FDCWD, in(from), AT_FDCWD, in(to), RENAME_NOREPLACE)));
    again();
    line("exchange", both, says(renameat2(AT_FDCWD, in(from), AT_FDCWD, in(to), RENAME_EXCHANGE)));
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    static const char *const names[] = {"file", "none", "empty", "full", "file/", "none/", "empty/", "full/file/x", "none/x", "file/.", "empty/."};
    static const char *const ends[] = {"file", "other", "none", "empty", "full", "none/x", "file/x", "full/x", "full/file"};
    static char place[PATH_MAX];
    if (!command.check)
        return 0;
    snprintf(place, sizeof place, "%s", path_in(command.dir, "name_errors"));
    dir = place;
    need(mkdir(dir, 0700) == 0, "mkdir");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        again();
        looking(names[i]);
        again();
        making(names[i]);
    }
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        for (size_t j = 0; j < sizeof ends / sizeof *ends; j++)
            renaming(ends[i], ends[j]);
    again();
    line("rename", "a directory into itself", says(rename(in("full"), in("full/below"))));
    line("rename", "with unknown flags", says(renameat2(AT_FDCWD, in("file"), AT_FDCWD, in("none"), 1 << 20)));
    line("rename", "with both flags", says(renameat2(AT_FDCWD, in("file"), AT_FDCWD, in("other"), RENAME_NOREPLACE | RENAME_EXCHANGE)));
    line("unlinkat", "with unknown flags", says(unlinkat(AT_FDCWD, in("file"), 1)));
    line("open", "the empty name", says(open("", O_RDONLY)));
    check(rmdir(in("empty")) == 0 && unlink(in("full/file")) == 0 && rmdir(in("full")) == 0 && unlink(in("file")) == 0
              && unlink(in("other")) == 0 && rmdir(dir) == 0, "nothing is left");
    return 0;
}
