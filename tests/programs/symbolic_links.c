/* Symbolic links: made, read, seen and followed, on every way and to every place; what acts on the link itself does so. */
#include "program.h"

#include <dirent.h>
#include <fts.h>
#include <glob.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static const char *dir;
static char text[8192];

static const char *in(const char *name) { return path_in(dir, name); }

static void line(const char *call, const char *name, const char *result)
{
    dprintf(STDOUT_FILENO, "ok: %s %s: %s\n", call, name, result);
}

static const char *says(long result)
{
    if (result > 2)
        close((int)result);
    return result < 0 ? strerrorname_np(errno) : "ok";
}

/* What a file that is reached by this name holds, or the errno. */
static const char *holds(const char *name)
{
    static char bytes[64];
    int at = open(in(name), O_RDONLY);
    if (at < 0)
        return strerrorname_np(errno);
    ssize_t got = read(at, bytes, sizeof bytes - 1);
    close(at);
    if (got < 0)
        return strerrorname_np(errno);
    bytes[got] = 0;
    return bytes;
}

static const char *target(const char *name)
{
    ssize_t got = readlink(in(name), text, sizeof text - 1);
    if (got < 0)
        return strerrorname_np(errno);
    text[got] = 0;
    return text;
}

static void make(const char *name, const char *bytes)
{
    int at = open(in(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    need(at >= 0 && write(at, bytes, strlen(bytes)) == (ssize_t)strlen(bytes) && close(at) == 0, name);
}

/* A name that holds where the files lie, which differs, is shown without it. */
static const char *shown(const char *path)
{
    static char out[8192];
    size_t length = strlen(dir);
    if (path == NULL)
        return strerrorname_np(errno);
    if (strncmp(path, dir, length) == 0)
        snprintf(out, sizeof out, "DIR%s", path + length);
    else
        snprintf(out, sizeof out, "%s", path);
    return out;
}

static void link_to(const char *to, const char *name) { line("symlink", name, says(symlink(to, in(name)))); }

static void making(void)
{
    char long_one[5000];
    need(mkdir(in("d"), 0755) == 0 && mkdir(in("d/e"), 0755) == 0, "mkdir");
    make("f", "file");
    make("d/x", "deep");
    link_to("f", "lf");
    link_to("d", "ld");
    link_to("d/", "ld-slash");
    link_to("../f", "d/up");
    link_to("../ld/x", "d/round");
    link_to("none", "dangling");
    link_to("none/x", "far");
    link_to("loop", "loop");
    link_to("f/", "lf-slash");
    link_to("..", "d/e/parent");
    link_to(in("d"), "absolute");
    link_to("/etc/passwd", "passwd");
    link_to("/", "root");
    link_to("f", "f");
    link_to("f", "ld");
    link_to("f", "dangling");
    link_to("f", "ld/made");
    link_to("f", "none/l");
    link_to("f", "f/l");
    link_to("f", "new/");
    link_to("f", "lf/");
    link_to("", "empty");
    memset(long_one, 'x', sizeof long_one);
    long_one[4096] = 0;
    link_to(long_one, "too-long");
    long_one[4095] = 0;
    link_to(long_one, "long");
    line("long", "readlink", readlink(in("long"), text, sizeof text) == 4095 ? "4095 bytes" : strerrorname_np(errno));
    line("long", "open", holds("long"));
    unlink(in("long"));
    link_to("bytes\xff\xfe", "bytes");
    line("bytes", "readlink", strcmp(target("bytes"), "bytes\xff\xfe") == 0 ? "as they were" : "others");
    unlink(in("bytes"));
}

static void reading(void)
{
    static const char *names[] = { "lf", "ld", "ld-slash", "d/up", "ld/round", "ld/made", "dangling", "far", "loop",
        "lf-slash", "f", "d", "lf/", "ld/", "none", "ld/e/parent/up" };
    struct stat status;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *name = names[i];
        line("readlink", name, target(name));
        line("holds", name, holds(name));
        int got = lstat(in(name), &status);
        snprintf(text, sizeof text, "%s %o size %ld", says(got), got < 0 ? 0 : status.st_mode & S_IFMT,
            got < 0 || S_ISDIR(status.st_mode) ? 0L : (long)status.st_size);
        line("lstat", name, text);
        got = stat(in(name), &status);
        snprintf(text, sizeof text, "%s %o", says(got), got < 0 ? 0 : status.st_mode & S_IFMT);
        line("stat", name, text);
        got = fstatat(AT_FDCWD, in(name), &status, AT_SYMLINK_NOFOLLOW);
        line("fstatat", name, got < 0 ? strerrorname_np(errno) : S_ISLNK(status.st_mode) ? "link" : "other");
        line("access", name, says(access(in(name), R_OK)));
        line("faccessat", name, says(faccessat(AT_FDCWD, in(name), F_OK, AT_SYMLINK_NOFOLLOW)));
        line("open nofollow", name, says(open(in(name), O_RDONLY | O_NOFOLLOW)));
        line("open directory", name, says(open(in(name), O_RDONLY | O_DIRECTORY)));
        line("open directory nofollow", name, says(open(in(name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW)));
        line("open exclusive", name, says(open(in(name), O_RDWR | O_CREAT | O_EXCL, 0600)));
        if (strcmp(name, "none") == 0)
            unlink(in(name));
        line("realpath", name, shown(realpath(in(name), text)));
        DIR *stream = opendir(in(name));
        line("opendir", name, stream == NULL ? strerrorname_np(errno) : "ok");
        if (stream != NULL)
            closedir(stream);
    }
    int at = open(in("lf"), O_PATH | O_NOFOLLOW);
    need(at >= 0 && fstat(at, &status) == 0, "a path descriptor of a link");
    line("open path", "lf", S_ISLNK(status.st_mode) ? "link" : "other");
    ssize_t got = readlinkat(at, "", text, sizeof text);
    line("readlinkat", "lf", got == 1 && text[0] == 'f' ? "f" : "other");
    close(at);
    line("small buffer", "readlink", readlink(in("d/round"), text, 3) == 3 && memcmp(text, "../", 3) == 0 ? "cut" : "other");
}

static void every_way(void)
{
    char cwd[4096];
    need(chdir(in("ld/e")) == 0 && getcwd(cwd, sizeof cwd) != NULL, "chdir by a link");
    line("getcwd", "ld/e", shown(cwd));
    line("relative", "../x", says(open("../x", O_RDONLY)));
    line("relative", "parent/x", says(open("parent/x", O_RDONLY)));
    line("relative", "parent/../f", says(open("parent/../f", O_RDONLY)));
    line("relative", "parent/../lf", says(open("parent/../lf", O_RDONLY)));
    need(chdir("/") == 0, "chdir");
    int at = open(in("ld"), O_RDONLY | O_DIRECTORY);
    line("at", "up", says(openat(at, "up", O_RDONLY)));
    line("at", "e/parent/../f", says(openat(at, "e/parent/../f", O_RDONLY)));
    line("at symlinkat", "at", says(symlinkat("x", at, "at")));
    line("at readlinkat", "at", readlinkat(at, "at", text, sizeof text) == 1 ? "x" : "other");
    line("at unlinkat", "at", says(unlinkat(at, "at", 0)));
    close(at);
    line("back", "ld/../f", holds("ld/../f"));
    line("back", "d/e/parent/../f", holds("d/e/parent/../f"));
    line("back", "absolute/../f", holds("absolute/../f"));
    line("back", "none/../f", holds("none/../f"));
    line("back", "f/../f", holds("f/../f"));
    line("out", "passwd", strncmp(holds("passwd"), "root:", 5) == 0 ? "ok" : "other");
    line("out", "root/etc/passwd", strncmp(holds("root/etc/passwd"), "root:", 5) == 0 ? "ok" : "other");
    line("out", "root/none", holds("root/none"));
    line("out realpath", "passwd", shown(realpath(in("passwd"), text)));
    struct stat status;
    line("out stat", "root/etc", stat(in("root/etc"), &status) == 0 && S_ISDIR(status.st_mode) ? "directory" : "other");
    FILE *stream = fopen(in("passwd"), "r");
    line("out fopen", "passwd", stream != NULL && fgets(text, sizeof text, stream) != NULL ? "ok" : "other");
    if (stream != NULL)
        fclose(stream);
    line("out rename", "root/none", says(rename(in("root/none"), in("away"))));
    line("absolute", "absolute/x", holds("absolute/x"));
    for (int i = 0; i < 41; i++) {
        char name[64], to[16];
        snprintf(name, sizeof name, "chain%d", i);
        snprintf(to, sizeof to, i == 40 ? "f" : "chain%d", i + 1);
        need(symlink(to, in(name)) == 0, "symlink");
    }
    line("forty", "chain1", holds("chain1"));
    line("forty-one", "chain0", holds("chain0"));
    for (int i = 0; i < 41; i++) {
        char name[64];
        snprintf(name, sizeof name, "chain%d", i);
        need(unlink(in(name)) == 0, "unlink");
    }
}

static void acting(void)
{
    struct stat status;
    struct timespec times[2] = { { 1000, 5 }, { 2000, 7 } };
    make("ld/made-through", "made");
    line("made", "d/made-through", holds("d/made-through"));
    make("dangling", "through");
    line("made", "none", holds("none"));
    line("unlink", "none", says(unlink(in("none"))));
    line("mkdir", "dangling", says(mkdir(in("dangling"), 0700)));
    line("mkdir", "ld/sub", says(mkdir(in("ld/sub"), 0700)));
    line("rmdir", "ld/sub", says(rmdir(in("ld/sub"))));
    line("rmdir", "ld", says(rmdir(in("ld"))));
    line("rmdir", "ld/", says(rmdir(in("ld/"))));
    line("unlink", "ld/", says(unlink(in("ld/"))));
    line("rmdir", "ld/.", says(rmdir(in("ld/."))));
    line("mkdir", "far", says(mkdir(in("far"), 0700)));
    line("utimensat", "lf", says(utimensat(AT_FDCWD, in("lf"), times, AT_SYMLINK_NOFOLLOW)));
    need(lstat(in("lf"), &status) == 0, "lstat");
    line("its time", "lf", status.st_mtim.tv_sec == 2000 && status.st_mtim.tv_nsec == 7 ? "set" : "other");
    need(stat(in("lf"), &status) == 0, "stat");
    line("the file's time", "lf", status.st_mtim.tv_sec == 2000 ? "set" : "other");
    line("utimensat follow", "lf", says(utimensat(AT_FDCWD, in("lf"), times, 0)));
    need(stat(in("f"), &status) == 0, "stat");
    line("the file's time", "f", status.st_mtim.tv_sec == 2000 ? "set" : "other");
    line("lchown", "lf", says(lchown(in("lf"), getuid(), getgid())));
    line("lchown", "dangling", says(lchown(in("dangling"), getuid(), getgid())));
    line("chown", "dangling", says(chown(in("dangling"), getuid(), getgid())));
    line("fchmodat", "lf", says(fchmodat(AT_FDCWD, in("lf"), 0600, AT_SYMLINK_NOFOLLOW)));
    line("fchmodat", "f", says(fchmodat(AT_FDCWD, in("f"), 0600, AT_SYMLINK_NOFOLLOW)));
    line("chmod", "lf", says(chmod(in("lf"), 0640)));
    line("chmod", "dangling", says(chmod(in("dangling"), 0640)));
    need(stat(in("f"), &status) == 0, "stat");
    snprintf(text, sizeof text, "%o", status.st_mode & 07777);
    line("mode", "f", text);
    line("truncate", "lf", says(truncate(in("lf"), 2)));
    line("holds", "f", holds("f"));
    line("rename", "lf", says(rename(in("lf"), in("moved"))));
    line("target", "moved", target("moved"));
    line("rename over a link", "d/x", says(rename(in("d/x"), in("moved"))));
    line("holds", "moved", holds("moved"));
    line("holds", "f", holds("f"));
    line("rename through", "ld/up", says(rename(in("ld/up"), in("absolute/up2"))));
    line("target", "d/up2", target("d/up2"));
    line("rename", "ld/", says(rename(in("ld/"), in("ld2"))));
    line("rename onto a link", "d", says(rename(in("d/e"), in("dangling"))));
    line("rename a link onto", "d", says(rename(in("dangling"), in("d/e"))));
    line("unlink", "ld", says(unlink(in("ld"))));
    line("is there", "d/up2", holds("d/up2"));
    line("remove", "loop", says(remove(in("loop"))));
    line("a link of the same", "ld", says(symlink("d", in("ld"))));
    need(symlink("first", in("swap")) == 0, "symlink");
    line("exchange", "swap", says(renameat2(AT_FDCWD, in("swap"), AT_FDCWD, in("moved"), RENAME_EXCHANGE)));
    line("target", "moved", target("moved"));
    line("holds", "swap", holds("swap"));
}

static int visits;
static char seen[64][400];

static int visit(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    (void)status;
    snprintf(seen[visits++], sizeof *seen, "%s kind %d level %d", shown(path), kind, at->level);
    return visits < 60 ? 0 : 1;
}

static int in_order(const void *a, const void *b) { return strcmp(a, b); }

static void sorted(const char *how)
{
    qsort(seen, (size_t)visits, sizeof *seen, in_order);
    for (int i = 0; i < visits; i++)
        line(how, "", seen[i]);
    visits = 0;
}

static void walking(void)
{
    glob_t found;
    DIR *stream = opendir(in(""));
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
        if (entry->d_name[0] != '.')
            snprintf(seen[visits++], sizeof *seen, "%s type %d", entry->d_name, entry->d_type);
    closedir(stream);
    sorted("readdir");
    need(nftw(in("d"), visit, 8, FTW_PHYS) == 0, "nftw");
    sorted("nftw physical");
    need(glob(in("*/up2"), 0, NULL, &found) == 0, "glob");
    for (size_t i = 0; i < found.gl_pathc; i++)
        line("glob", "*/up2", shown(found.gl_pathv[i]));
    globfree(&found);
    char *roots[] = { (char *)in("d"), NULL };
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    need(tree != NULL, "fts_open");
    for (FTSENT *entry; (entry = fts_read(tree)) != NULL;)
        snprintf(seen[visits++], sizeof *seen, "%s info %d", entry->fts_name, entry->fts_info);
    fts_close(tree);
    sorted("fts physical");
    need(symlink("../moved-file", in("d/leads")) == 0, "symlink");
    make("moved-file", "there");
    need(symlink("d", in("way")) == 0, "symlink");
    need(nftw(in("way"), visit, 8, 0) == 0, "nftw");
    sorted("nftw logical");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    static char made[4096];
    snprintf(made, sizeof made, "%s/symbolic-links", command.dir);
    dir = made;
    if (command.write) {
        need(mkdir(dir, 0755) == 0, "mkdir");
        making();
    }
    if (command.check) {
        reading();
        every_way();
        acting();
        walking();
        need(remove_all(dir) == 0, "nothing is left");
        check(access(dir, F_OK) != 0 && errno == ENOENT, "links are made, read, followed, moved and removed");
    }
    return 0;
}
