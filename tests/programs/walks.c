/* What libc looks up inside itself: realpath, nftw, ftw, fts, glob, scandir, directory streams. */
#include "program.h"

#include <dirent.h>
#include <fts.h>
#include <ftw.h>
#include <glob.h>

static const char *root;
static char seen[4096];

static void note(const char *path, const char *more)
{
    size_t length = strlen(root);
    const char *rest = strncmp(path, root, length) == 0 ? path + length : path;
    snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%s%s ", rest, more);
}

static int visit(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    char more[64];
    snprintf(more, sizeof more, ":%d:%s:%d", at->level, path + at->base, kind == FTW_F ? (int)status->st_size : -1);
    note(path, more);
    return 0;
}

static int visit_plainly(const char *path, const struct stat *status, int kind)
{
    note(path, kind == FTW_D ? "/" : "");
    return status->st_size == 7 ? 7 : 0;
}

static int stop(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    (void)status, (void)kind, (void)at;
    return access(path, R_OK) == 0 ? 42 : 1;
}

/* The words of `seen`, since directories have no order, in alphabetical order. */
static int compare(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static const char *sorted(void)
{
    static char out[4096];
    char *words[64], *save = NULL;
    size_t count = 0;
    for (char *word = strtok_r(seen, " ", &save); word != NULL && count < 64; word = strtok_r(NULL, " ", &save))
        words[count++] = word;
    qsort(words, count, sizeof *words, compare);
    out[0] = 0;
    for (size_t i = 0; i < count; i++)
        snprintf(out + strlen(out), sizeof out - strlen(out), "%s ", words[i]);
    seen[0] = 0;
    return out;
}

static int by_name(const FTSENT **a, const FTSENT **b) { return strcmp((*a)->fts_name, (*b)->fts_name); }

static void trees(const char *dir)
{
    check(nftw(dir, visit, 8, FTW_PHYS) == 0, "nftw walks a tree");
    dprintf(STDOUT_FILENO, "%s\n", sorted());
    check(nftw(dir, visit, 8, FTW_DEPTH | FTW_PHYS | FTW_CHDIR) == 0, "and changes directories if it is told to");
    dprintf(STDOUT_FILENO, "%s\n", sorted());
    check(nftw(dir, stop, 8, 0) == 42, "it stops when the function says so");
    check(nftw(path_in(dir, "none"), visit, 8, 0) == -1 && errno == ENOENT, "a tree that is not there is ENOENT");
    check(ftw(dir, visit_plainly, 8) == 7, "ftw");
    seen[0] = 0;
    need(chdir(dir) == 0, "chdir");
    root = ".";
    check(nftw(".", visit, 8, FTW_PHYS) == 0, "a walk from the working directory");
    dprintf(STDOUT_FILENO, "%s\n", sorted());
    root = dir;

    char *paths[] = {(char *)dir, NULL};
    FTS *tree = fts_open(paths, FTS_PHYSICAL, by_name);
    FTSENT *entry;
    need(tree != NULL, "fts_open");
    while ((entry = fts_read(tree)) != NULL)
        if (entry->fts_level > 0 && entry->fts_info != FTS_DP)
            note(entry->fts_name, entry->fts_info == FTS_F ? "" : "/");
    check(fts_close(tree) == 0, "fts walks it in order");
    dprintf(STDOUT_FILENO, "%s\n", seen);
    seen[0] = 0;
}

/* What a program makes of the paths that fts shows: it may cut off what it gave, and removes what it finds. */
static void removals(const char *dir)
{
    for (int way = 0; way < 4; way++) {
        const char *top = path_in(dir, "gone");
        char given[PATH_MAX];
        need(chdir(dir) == 0 && mkdir(top, 0755) == 0 && mkdir(path_in(dir, "gone/b"), 0755) == 0, "directories");
        close(open_or_fail(path_in(dir, "gone/b/file"), O_RDWR | O_CREAT));
        snprintf(given, sizeof given, "%s", way & 1 ? "gone" : way ? path_in(dir, "gone/") : top);
        char *paths[] = {given, NULL};
        FTS *tree = fts_open(paths, FTS_PHYSICAL | (way & 2 ? 0 : FTS_NOCHDIR), NULL);
        FTSENT *entry;
        int same = 1, levels = 0;
        while ((entry = fts_read(tree)) != NULL) {
            same &= strncmp(entry->fts_path, given, strlen(given)) == 0 && strlen(entry->fts_path) == entry->fts_pathlen;
            if (entry->fts_info == FTS_D && entry->fts_level == 0)
                same &= fts_children(tree, 0) != NULL;
            note(way & 1 ? entry->fts_path : entry->fts_path + strlen(dir), entry->fts_info == FTS_DP ? "<" : "");
            if (entry->fts_info == FTS_DP)
                same &= rmdir(entry->fts_accpath) == 0, levels++;
            else if (entry->fts_info == FTS_F)
                same &= unlink(entry->fts_accpath) == 0;
        }
        check(fts_close(tree) == 0 && same && levels == 2 && access(top, F_OK) == -1, "a tree is removed by what fts shows");
        dprintf(STDOUT_FILENO, "%s\n", seen);
        seen[0] = 0;
    }
}

static void patterns(const char *dir)
{
    glob_t found;
    check(glob(path_in(dir, "*"), 0, NULL, &found) == 0 && found.gl_pathc == 3, "a pattern finds what is there");
    for (size_t i = 0; i < found.gl_pathc; i++)
        note(found.gl_pathv[i], "");
    dprintf(STDOUT_FILENO, "%s\n", seen);
    seen[0] = 0;
    check(glob(path_in(dir, "[!s]*"), GLOB_APPEND | GLOB_MARK, NULL, &found) == 0 && found.gl_pathc == 5, "and more of it");
    globfree(&found);
    check(glob(path_in(dir, "sub/*/*p"), GLOB_NOSORT, NULL, &found) == 0 && found.gl_pathc == 1, "in directories too");
    globfree(&found);
    check(glob(path_in(dir, "z*"), 0, NULL, &found) == GLOB_NOMATCH, "nothing matches");
    check(chdir(path_in(dir, "sub")) == 0 && glob("*", 0, NULL, &found) == 0 && found.gl_pathc == 1
              && strcmp(found.gl_pathv[0], "deeper") == 0, "a relative one in the working directory");
    globfree(&found);
}

static void names(const char *dir)
{
    char *given = path_in(dir, "sub/../sub/./deeper/deep") ? realpath(path_in(dir, "sub/../sub//./deeper/deep"), NULL) : NULL;
    char buffer[PATH_MAX];
    check(given != NULL && strcmp(given, path_in(dir, "sub/deeper/deep")) == 0, "realpath takes the dots out");
    free(given);
    check(realpath(path_in(dir, "none"), buffer) == NULL && errno == ENOENT, "and says ENOENT for what is not there");
    check(realpath(path_in(dir, "a/b"), buffer) == NULL && errno == ENOTDIR, "and ENOTDIR for what is below a file");
    check(chdir(path_in(dir, "sub")) == 0 && realpath("deeper/..", buffer) == buffer
              && strcmp(buffer, path_in(dir, "sub")) == 0, "a relative one");
    given = canonicalize_file_name(".");
    check(given != NULL && strcmp(given, buffer) == 0 && getcwd(buffer, sizeof buffer) != NULL && strcmp(given, buffer) == 0,
          "the working directory");
    free(given);
    FILE *shell = popen("pwd -P && echo made > \"$(pwd -P)/made\" && cat made && rm \"$PWD/made\"", "r");
    char text[PATH_MAX] = "";
    check(shell != NULL && fgets(text, sizeof text, shell) != NULL && strncmp(text, buffer, strlen(buffer)) == 0
              && fgets(text, sizeof text, shell) != NULL && strcmp(text, "made\n") == 0 && pclose(shell) == 0,
          "of a program that starts there, too");
    check(getcwd(buffer, 2) == NULL && errno == ERANGE, "which does not fit everywhere");
    given = get_current_dir_name();
    check(given != NULL && strcmp(given, path_in(dir, "sub")) == 0, "its name");
    free(given);
    check(readlink(path_in(dir, "a"), buffer, sizeof buffer) == -1 && errno == EINVAL, "a file is no link");
    check(pathconf(dir, _PC_NAME_MAX) == 255, "names have 255 bytes");
}

static void streams(const char *dir)
{
    struct dirent **entries;
    int count = scandir(dir, &entries, NULL, alphasort);
    check(count == 5 && strcmp(entries[2]->d_name, "a") == 0, "scandir");
    int fd = open(dir, O_RDONLY | O_DIRECTORY);
    check(scandirat(fd, "sub", &entries, NULL, alphasort) == 3, "scandirat");
    close(open_or_fail(path_in(dir, "later"), O_RDWR | O_CREAT));
    DIR *stream = fdopendir(fd);
    check(stream != NULL && dirfd(stream) == fd, "fdopendir");
    count = 0;
    while (readdir(stream) != NULL)
        count++;
    check(count == 6, "a new file is in it");
    unlink(path_in(dir, "later"));
    rewinddir(stream);
    for (count = 0; readdir(stream) != NULL; count++)
        ;
    check(count == 5, "a removed one is not, after rewinddir");
    rewinddir(stream);
    long at = telldir(stream);
    struct dirent *entry = readdir(stream);
    char first[256];
    need(entry != NULL, "readdir");
    snprintf(first, sizeof first, "%s", entry->d_name);
    seekdir(stream, at);
    check((entry = readdir(stream)) != NULL && strcmp(entry->d_name, first) == 0, "seekdir goes back to telldir's place");
    closedir(stream);
    check(opendir(path_in(dir, "a")) == NULL && errno == ENOTDIR, "a file is no directory");
    check(opendir(path_in(dir, "none")) == NULL && errno == ENOENT, "nor is nothing");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    static char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s", path_in(command.dir, "walks"));
    root = dir;
    if (command.write) {
        need(mkdir(dir, 0755) == 0 && mkdir(path_in(dir, "sub"), 0755) == 0 && mkdir(path_in(dir, "sub/deeper"), 0755) == 0,
             "mkdir");
        int fd = open_or_fail(path_in(dir, "a"), O_RDWR | O_CREAT), other = open_or_fail(path_in(dir, "b.txt"), O_RDWR | O_CREAT);
        close(open_or_fail(path_in(dir, "sub/deeper/deep"), O_RDWR | O_CREAT));
        need(write(fd, "1234567", 7) == 7 && close(fd) == 0 && close(other) == 0, "write");
    }
    if (!command.check)
        return 0;
    trees(dir);
    removals(dir);
    patterns(dir);
    names(dir);
    streams(dir);
    return chdir("/") != 0 || unlink(path_in(dir, "sub/deeper/deep")) != 0 || rmdir(path_in(dir, "sub/deeper")) != 0 || rmdir(path_in(dir, "sub")) != 0 || unlink(path_in(dir, "a")) != 0 || unlink(path_in(dir, "b.txt")) != 0 || rmdir(dir) != 0;
}
