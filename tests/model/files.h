/*
 * Lines on names and descriptors. S is a slot, NAME a name in the directory, BUF "-" or an address of the arena.
 *
 *     open S NAME FLAGS          letters: r w rw, c(reate) x(clusive) t(runcate) a(ppend) s(ync)
 *     close S                    dup S TO             over S TO (dup2)
 *     read S COUNT BUF           pread S OFF COUNT BUF          readv S COUNT COUNT BUF BUF
 *     write S COUNT SEED BUF     pwrite S OFF COUNT SEED BUF    writev S COUNT COUNT SEED BUF BUF    (likewise preadv, pwritev)
 *     seek S OFF set|cur|end     seek S OFF data|hole: only whether it hides data
 *     trunc S SIZE               truncate NAME SIZE
 *     falloc S MODE OFF COUNT    pfalloc S OFF COUNT            fsync S, fdatasync S
 *     copy S OFF TO OFF COUNT    copy_file_range; OFF - for the descriptor's own        send S TO OFF COUNT (sendfile)
 *     tails NAME…                clears what lies behind the end of each file in its last page
 *     unlink NAME                rename NAME NAME               exchange NAME NAME      stat NAME, fstat S
 */
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "model.h"

static char scratch[2][BYTES_MAX];

/* Zeros from the end of a file to the end of its last page. */
static void clear_page_end(int fd, off_t size)
{
    if (size % PAGE == 0)
        return;
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, size / PAGE * PAGE);
    if (page == MAP_FAILED)
        return;
    memset(page + size % PAGE, 0, (size_t)(PAGE - size % PAGE));
    munmap(page, PAGE);
}

/*
 * tmpfs shows, once a file has grown, what a mapping stored behind its old end; POSIX and every disk file system show zeros, and
 * that is what is wanted. So the reference clears the rest of the last page before a call that may make the file longer.
 */
static void clear_tail(int fd, off_t end)
{
    struct stat status;
    if (!reference || fstat(fd, &status) != 0 || end <= status.st_size || status.st_size % PAGE == 0
        || (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
        return;
    /* Through this very descriptor: the close of another one would give the process's locks up. */
    (void)!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, status.st_size, PAGE - status.st_size % PAGE);
}

static void clear_tails(char **word, int words)
{
    for (int i = 1; i < words; i++) {
        struct stat status;
        int fd = open(word[i], O_RDWR | O_CLOEXEC);
        if (fd >= 0 && fstat(fd, &status) == 0)
            clear_page_end(fd, status.st_size);
        if (fd >= 0)
            close(fd);
    }
    say(" ok");
}

/* Where the next write goes. */
static off_t position(int fd)
{
    struct stat status;
    if ((fcntl(fd, F_GETFL) & O_APPEND) != 0 && fstat(fd, &status) == 0)
        return status.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

static size_t count_of(const char *word)
{
    size_t count = (size_t)number(word);
    return count < BYTES_MAX ? count : BYTES_MAX;
}

static void *buffer(const char *word, int which)
{
    return word == NULL || word[0] == '-' ? scratch[which] : address(word);
}

/*
 * What a call does whose buffer shows the part of the file that it moves, or a part behind the end that it is about to make,
 * depends on how many bytes the kernel copies at a time, and is no promise of anybody's: such a line is not obeyed.
 */
static int tangled(int fd, off_t at, size_t count, int writes, const struct iovec *part)
{
    struct stat status;
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    int found = 0;
    if (maps == NULL || fstat(fd, &status) != 0 || part->iov_len == 0)
        at = -1;
    uintptr_t from = (uintptr_t)part->iov_base, to = from + part->iov_len;
    while (at >= 0 && fgets(line, sizeof line, maps) != NULL) {
        uintptr_t start, end;
        char flags[8];
        uintmax_t offset, inode;
        if (sscanf(line, "%lx-%lx %7s %jx %*s %ju", &start, &end, flags, &offset, &inode) != 5 || inode != status.st_ino
            || end <= from || to <= start)
            continue;
        uintmax_t shown = offset + (start > from ? 0 : from - start);
        uintmax_t behind = offset + ((end < to ? end : to) - start);
        int meets = shown < (uintmax_t)at + count && behind > (uintmax_t)at;
        found |= (meets && flags[3] == 's') || (writes && at + (off_t)count > status.st_size);
    }
    if (maps != NULL)
        fclose(maps);
    if (found)
        say(" tangled");
    return found;
}

static void say_read(long count, const char *word)
{
    say_result(count);
    if (count > 0 && (word == NULL || word[0] == '-'))
        say(" %06x", digest(scratch[0], (size_t)count));
}

static void do_open(const char *into, const char *name, const char *letters)
{
    int *to = &slot[slot_of(into)];
    if (*to >= 0) {
        say(" taken");
        return;
    }
    int flags = strchr(letters, 'r') == NULL ? O_WRONLY : strchr(letters, 'w') == NULL ? O_RDONLY : O_RDWR;
    static const struct { char letter; int flag; } more[] = {
        {'c', O_CREAT}, {'x', O_EXCL}, {'t', O_TRUNC}, {'a', O_APPEND}, {'s', O_SYNC}};
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
        flags |= strchr(letters, more[i].letter) ? more[i].flag : 0;
    *to = open(name, flags | O_CLOEXEC, 0644);
    say_result(*to < 0 ? -1 : 0);
}

static void duplicate(const char *from, const char *into, int over)
{
    int *to = &slot[slot_of(into)], fd = slot[slot_of(from)];
    if (over && *to >= 0) {
        say_result(dup2(fd, *to) < 0 ? -1 : 0);
        return;
    }
    if (*to >= 0) {
        say(" taken");
        return;
    }
    *to = dup(fd);
    say_result(*to < 0 ? -1 : 0);
}

/* Between OFF and what SEEK_DATA says lies nothing; where SEEK_HOLE points, there are zeros to the page's end. */
static void seek_data(int fd, off_t from, int whence)
{
    off_t before = lseek(fd, 0, SEEK_CUR);
    struct stat status;
    fstat(fd, &status);
    off_t found = lseek(fd, from, whence);
    int error = errno;
    if (before >= 0)
        lseek(fd, before, SEEK_SET);
    if (found < 0 && (error != ENXIO || from < 0 || from >= status.st_size)) {
        errno = error;
        say_result(-1);
        return;
    }
    off_t start = whence == SEEK_HOLE ? found : from;
    off_t end = whence == SEEK_HOLE ? (found / PAGE + 1) * PAGE : found < 0 ? status.st_size : found;
    for (off_t at = start; at < end; at++) {
        char byte = 0;
        if (pread(fd, &byte, 1, at) == 1 && byte != 0) {
            say(" hides data at %jd", (intmax_t)at);
            return;
        }
    }
    say(" ok");
}

static void do_seek(int fd, off_t offset, const char *word)
{
    if (strcmp(word, "data") == 0 || strcmp(word, "hole") == 0)
        seek_data(fd, offset, strcmp(word, "data") == 0 ? SEEK_DATA : SEEK_HOLE);
    else
        say_result(lseek(fd, offset, strcmp(word, "set") == 0 ? SEEK_SET : strcmp(word, "cur") == 0 ? SEEK_CUR : SEEK_END));
}

static void say_stat(int result, const struct stat *status)
{
    say_result(result);
    if (result == 0)
        say(" size %jd links %ju mode %o", (intmax_t)status->st_size, (uintmax_t)status->st_nlink, status->st_mode);
}

/* read S COUNT BUF, pread S OFF COUNT BUF, readv S COUNT COUNT BUF BUF, preadv S OFF COUNT COUNT BUF BUF */
static int on_reads(char **word)
{
    int at = word[0][0] == 'p', fd = slot[slot_of(word[1])];
    char **rest = word + 2 + at;
    if (strcmp(word[0] + at, "read") == 0) {
        size_t count = count_of(rest[0]);
        void *to = buffer(rest[1], 0);
        struct iovec part = {to, count};
        if (tangled(fd, at ? number(word[2]) : lseek(fd, 0, SEEK_CUR), count, 0, &part))
            return 1;
        say_read(at ? pread(fd, to, count, number(word[2])) : read(fd, to, count), rest[1]);
    } else if (strcmp(word[0] + at, "readv") == 0) {
        struct iovec parts[2] = {{buffer(rest[2], 0), count_of(rest[0])}, {buffer(rest[3], 1), count_of(rest[1])}};
        off_t start = at ? number(word[2]) : lseek(fd, 0, SEEK_CUR);
        size_t all = parts[0].iov_len + parts[1].iov_len;
        if (tangled(fd, start, all, 0, &parts[0]) || tangled(fd, start, all, 0, &parts[1]))
            return 1;
        memset(scratch, 0, sizeof scratch);
        say_result(at ? preadv(fd, parts, 2, number(word[2])) : readv(fd, parts, 2));
        say(" %06x %06x", digest(scratch[0], count_of(rest[0])), digest(scratch[1], count_of(rest[1])));
    } else
        return 0;
    return 1;
}

/* write S COUNT SEED BUF, pwrite S OFF COUNT SEED BUF, writev S COUNT COUNT SEED BUF BUF, pwritev S OFF … */
static int on_writes(char **word)
{
    int at = word[0][0] == 'p', fd = slot[slot_of(word[1])];
    int vector = strcmp(word[0] + at, "writev") == 0;
    char **rest = word + 2 + at;
    if (!vector && strcmp(word[0] + at, "write") != 0)
        return 0;
    char **seed = rest + 1 + vector;
    size_t first = count_of(rest[0]), second = vector ? count_of(rest[1]) : 0;
    fill(scratch[0], first, number(*seed));
    fill(scratch[1], second, number(*seed) + 1);
    struct iovec parts[2] = {{buffer(seed[1], 0), first}, {vector ? buffer(seed[2], 1) : scratch[1], second}};
    off_t to = at && (fcntl(fd, F_GETFL) & O_APPEND) == 0 ? number(word[2]) : position(fd);
    if (tangled(fd, to, first + second, 1, &parts[0]) || tangled(fd, to, first + second, 1, &parts[1]))
        return 1;
    if (to >= 0 && first + second > 0)
        clear_tail(fd, to + (off_t)(first + second));
    if (vector)
        say_result(at ? pwritev(fd, parts, 2, number(word[2])) : writev(fd, parts, 2));
    else
        say_result(at ? pwrite(fd, parts[0].iov_base, first, number(word[2])) : write(fd, parts[0].iov_base, first));
    return 1;
}

/* Whether the kernel moves bytes between these: what it refuses changes no tail. */
static int can_move(int from, int to)
{
    int source = fcntl(from, F_GETFL), target = fcntl(to, F_GETFL);
    return source >= 0 && target >= 0 && (source & O_ACCMODE) != O_WRONLY && (target & O_APPEND) == 0;
}

static void copy(char **word)
{
    int from = slot[slot_of(word[1])], to = slot[slot_of(word[3])];
    off_t in = number(word[2]), out = number(word[4]);
    int own_in = word[2][0] == '-', own_out = word[4][0] == '-';
    size_t count = count_of(word[5]);
    struct stat status;
    off_t at = own_out ? lseek(to, 0, SEEK_CUR) : out;
    if (can_move(from, to) && fstat(from, &status) == 0) {
        off_t left = status.st_size - (own_in ? lseek(from, 0, SEEK_CUR) : in);
        left = left < 0 ? 0 : left;
        clear_tail(to, at + ((off_t)count < left ? (off_t)count : left));
    }
    say_result(copy_file_range(from, own_in ? NULL : &in, to, own_out ? NULL : &out, count, 0));
    say(" %jd %jd", (intmax_t)in, (intmax_t)out);
}

static void send_from(char **word)
{
    int from = slot[slot_of(word[1])], to = slot[slot_of(word[2])];
    off_t in = number(word[3]);
    size_t count = count_of(word[4]);
    struct stat status, into;
    /* A file into itself: where the source ends is what it was before the call (docs/SEMANTICS.md). */
    if (fstat(from, &status) == 0 && fstat(to, &into) == 0 && status.st_ino == into.st_ino && status.st_dev == into.st_dev) {
        say(" itself");
        return;
    }
    if (can_move(from, to) && fstat(from, &status) == 0 && in < status.st_size) {
        off_t left = status.st_size - in;
        clear_tail(to, position(to) + ((off_t)count < left ? (off_t)count : left));
    }
    say_result(sendfile(to, from, &in, count));
    say(" %jd", (intmax_t)in);
}

static void set_size(char **word, int by_name)
{
    off_t size = number(word[2]);
    int fd = by_name ? open(word[1], O_RDWR | O_CLOEXEC) : slot[slot_of(word[1])];
    clear_tail(fd, size);
    if (by_name && fd >= 0)
        close(fd);
    say_result(by_name ? truncate(word[1], size) : ftruncate(fd, size));
}

static void allocate(char **word)
{
    int fd = slot[slot_of(word[1])];
    if (strcmp(word[0], "falloc") == 0) {
        int mode = (int)number(word[2]);
        if ((mode & FALLOC_FL_KEEP_SIZE) == 0)
            clear_tail(fd, number(word[3]) + number(word[4]));
        say_result(fallocate(fd, mode, number(word[3]), number(word[4])));
        return;
    }
    clear_tail(fd, number(word[2]) + number(word[3]));
    int error = posix_fallocate(fd, number(word[2]), number(word[3]));
    errno = error;
    say_result(error == 0 ? 0 : -1);
}

static int on_names(char **word, int words)
{
    struct stat status;
    if (strcmp(word[0], "unlink") == 0)
        say_result(unlink(word[1]));
    else if (strcmp(word[0], "rename") == 0 && words > 2)
        say_result(rename(word[1], word[2]));
    else if (strcmp(word[0], "exchange") == 0 && words > 2)
        say_result(renameat2(AT_FDCWD, word[1], AT_FDCWD, word[2], RENAME_EXCHANGE));
    else if (strcmp(word[0], "stat") == 0)
        say_stat(stat(word[1], &status), &status);
    else if (strcmp(word[0], "fstat") == 0)
        say_stat(fstat(slot[slot_of(word[1])], &status), &status);
    else
        return 0;
    return 1;
}

int on_files(char **word, int words)
{
    const char *call = word[0];
    if (words < 2)
        return 0;
    int *place = &slot[slot_of(word[1])];
    if (strcmp(call, "open") == 0 && words > 3)
        do_open(word[1], word[2], word[3]);
    else if (strcmp(call, "close") == 0) {
        say_result(close(*place));
        *place = -1;
    } else if ((strcmp(call, "dup") == 0 || strcmp(call, "over") == 0) && words > 2)
        duplicate(word[1], word[2], call[0] == 'o');
    else if (strcmp(call, "seek") == 0 && words > 3)
        do_seek(*place, number(word[2]), word[3]);
    else if (strcmp(call, "trunc") == 0 || strcmp(call, "truncate") == 0)
        set_size(word, strcmp(call, "truncate") == 0);
    else if (strcmp(call, "falloc") == 0 || strcmp(call, "pfalloc") == 0)
        allocate(word);
    else if (strcmp(call, "fsync") == 0 || strcmp(call, "fdatasync") == 0)
        say_result(call[1] == 's' ? fsync(*place) : fdatasync(*place));
    else if (strcmp(call, "tails") == 0)
        clear_tails(word, words);
    else if (strcmp(call, "copy") == 0 && words > 5)
        copy(word);
    else if (strcmp(call, "send") == 0 && words > 4)
        send_from(word);
    else
        return on_reads(word) || on_writes(word) || on_names(word, words);
    return 1;
}

/* Each open file: where its offset is, how long it is, and its pages. */
void look_at_files(void)
{
    static char bytes[PAGE];
    for (int i = 0; i < SLOTS; i++) {
        struct stat status;
        if (slot[i] < 0 || fstat(slot[i], &status) != 0)
            continue;
        say(" | s%d @%jd/%jd", i, (intmax_t)lseek(slot[i], 0, SEEK_CUR), (intmax_t)status.st_size);
        if ((fcntl(slot[i], F_GETFL) & O_ACCMODE) == O_WRONLY)
            continue;
        uint32_t same = 0;
        for (off_t at = 0, since = -1; at <= status.st_size; at += PAGE) {
            ssize_t count = at < status.st_size ? pread(slot[i], bytes, PAGE, at) : -1;
            uint32_t now = count > 0 ? digest(bytes, (size_t)count) : (uint32_t)-1;
            if (since >= 0 && now == same && at < status.st_size)
                continue;
            if (since >= 0)
                say(" %jd:%06x", (intmax_t)(since / PAGE), same);
            since = at;
            same = now;
        }
    }
}
