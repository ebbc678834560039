/* Hard links: several names of one file, counted everywhere; what one shows the others show, and the file lives as long as one is left. */
#include "program.h"


static const char *dir;

static const char *in(const char *name) { return path_in(dir, name); }

static void line(const char *call, const char *name, const char *result)
{
    dprintf(STDOUT_FILENO, "ok: %s %s: %s\n", call, name, result);
}

static const char *says(long result) { return result < 0 ? strerrorname_np(errno) : "ok"; }

static const char *holds(const char *name)
{
    static char bytes[64];
    int at = open(in(name), O_RDONLY);
    if (at < 0)
        return strerrorname_np(errno);
    ssize_t got = read(at, bytes, sizeof bytes - 1);
    close(at);
    bytes[got < 0 ? 0 : got] = 0;
    return bytes;
}

static void write_to(const char *name, const char *bytes)
{
    int at = open(in(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    need(at >= 0 && write(at, bytes, strlen(bytes)) == (ssize_t)strlen(bytes) && close(at) == 0, name);
}

static void count(const char *name)
{
    struct stat status;
    char text[64];
    if (lstat(in(name), &status) != 0)
        snprintf(text, sizeof text, "%s", strerrorname_np(errno));
    else
        snprintf(text, sizeof text, "%lu", (unsigned long)status.st_nlink);
    line("names", name, text);
}

static int same(const char *one, const char *other)
{
    struct stat first, second;
    return stat(in(one), &first) == 0 && stat(in(other), &second) == 0 && first.st_ino == second.st_ino
        && first.st_dev == second.st_dev;
}

static void makes(const char *from, const char *to) { line(to, from, says(link(in(from), in(to)))); }

static void making(void)
{
    char number[64];
    need(mkdir(in("d"), 0755) == 0 && mkdir(in("e"), 0755) == 0, "mkdir");
    write_to("f", "one");
    makes("f", "g");
    makes("g", "d/h");
    makes("f", "g");
    makes("d", "dd");
    makes("d", "e");
    makes("none", "x");
    makes("f", "none/x");
    makes("f/", "x");
    makes("f", "x/");
    makes("f", "d/");
    makes("f", "f/x");
    need(symlink("f", in("l")) == 0, "symlink");
    line("linkat", "l followed", says(linkat(AT_FDCWD, in("l"), AT_FDCWD, in("followed"), AT_SYMLINK_FOLLOW)));
    line("linkat", "l itself", says(linkat(AT_FDCWD, in("l"), AT_FDCWD, in("itself"), 0)));
    struct stat status;
    line("linkat", "itself", lstat(in("itself"), &status) == 0 && S_ISLNK(status.st_mode) ? "a link" : "other");
    line("linkat", "flags", says(linkat(AT_FDCWD, in("f"), AT_FDCWD, in("x"), 0x10000)));
    int at = open(in("g"), O_RDWR), below = open(in("d"), O_RDONLY | O_DIRECTORY);
    line("linkat", "below", says(linkat(below, "h", below, "i", 0)));
    snprintf(number, sizeof number, "/proc/self/fd/%d", at);
    line("linkat", "descriptor", says(linkat(AT_FDCWD, number, AT_FDCWD, in("by-number"), AT_SYMLINK_FOLLOW)));
    need(fstat(at, &status) == 0, "fstat");
    snprintf(number, sizeof number, "%lu", (unsigned long)status.st_nlink);
    line("fstat", "g", number);
    close(at);
    close(below);
    count("f");
    count("d/h");
}

static void sharing(void)
{
    static const char *names[] = { "f", "g", "d/h", "followed", "d/i", "by-number" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        line("same", names[i], same("f", names[i]) ? "yes" : "no");
        line("holds", names[i], holds(names[i]));
        count(names[i]);
    }
    /* One page cache: a store through the one is in the other, sync or not. */
    int one = open(in("g"), O_RDWR), other = open(in("d/h"), O_RDWR);
    need(one >= 0 && other >= 0 && ftruncate(one, 2 * PAGE) == 0, "open");
    char *map = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
    need(map != MAP_FAILED, "mmap");
    need(pwrite(one, "written", 7, PAGE) == 7, "pwrite");
    check(memcmp(map + PAGE, "written", 7) == 0, "what is written by one name is in a mapping of another");
    memcpy(map, "stored", 6);
    char bytes[8] = "";
    check(pread(one, bytes, 6, 0) == 6 && memcmp(bytes, "stored", 6) == 0, "what is stored by one name is read by another");
    need(msync(map, 2 * PAGE, MS_SYNC) == 0 && munmap(map, 2 * PAGE) == 0 && close(one) == 0 && close(other) == 0, "close");
    line("holds", "by-number", holds("by-number"));
    need(chmod(in("f"), 0640) == 0, "chmod");
    struct stat status;
    check(stat(in("d/i"), &status) == 0 && (status.st_mode & 07777) == 0640, "permissions are the file's");
}

static void moving(void)
{
    struct stat status;
    char number[64];
    line("rename onto another name of the same", "f", says(rename(in("f"), in("g"))));
    count("f");
    count("g");
    line("without replacing", "f", says(renameat2(AT_FDCWD, in("f"), AT_FDCWD, in("g"), RENAME_NOREPLACE)));
    line("exchange", "f", says(renameat2(AT_FDCWD, in("f"), AT_FDCWD, in("g"), RENAME_EXCHANGE)));
    line("rename", "d", says(rename(in("d"), in("e"))));
    count("e/h");
    write_to("other", "other");
    line("replaced", "g", says(rename(in("other"), in("g"))));
    line("holds", "g", holds("g"));
    count("g");
    count("f");
    /* As a lock: who makes the second name has it. */
    write_to("mine", "mine");
    line("lock", "taken", says(link(in("mine"), in("lock"))));
    line("lock", "again", says(link(in("mine"), in("lock"))));
    need(unlink(in("mine")) == 0, "unlink");
    line("holds", "lock", holds("lock"));
    count("lock");
    int at = open(in("f"), O_RDWR);
    static const char *names[] = { "f", "followed", "e/h", "e/i" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        line("unlink", names[i], says(unlink(in(names[i]))));
        need(fstat(at, &status) == 0, "fstat");
        snprintf(number, sizeof number, "%lu", (unsigned long)status.st_nlink);
        line("fstat", "left", number);
    }
    need(pwrite(at, "last", 4, 0) == 4, "pwrite");
    line("unlink", "by-number", says(unlink(in("by-number"))));
    need(fstat(at, &status) == 0, "fstat");
    snprintf(number, sizeof number, "%lu", (unsigned long)status.st_nlink);
    line("fstat", "left", number);
    char bytes[8] = "";
    check(pread(at, bytes, 4, 0) == 4 && memcmp(bytes, "last", 4) == 0, "without a name it lives while it is open");
    close(at);
    count("f");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    static char made[4096];
    snprintf(made, sizeof made, "%s/hard-links", command.dir);
    dir = made;
    if (command.write) {
        need(mkdir(dir, 0755) == 0, "mkdir");
        making();
    }
    if (command.check) {
        sharing();
        moving();
        need(remove_all(dir) == 0, "nothing is left");
        check(access(dir, F_OK) != 0 && errno == ENOENT, "names are made, counted, moved and removed");
    }
    return 0;
}
