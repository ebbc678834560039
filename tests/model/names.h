/*
 * Lines on names and locks. S is a slot; KIND is r w u (F_RDLCK F_WRLCK F_UNLCK), or s x u for flock.
 *
 *     link NAME NAME             symlink TARGET NAME            readlink NAME, lstat NAME            ls (what the directory shows)
 *     lock S KIND OFF LEN        fcntl(F_SETLK)                 olock S KIND OFF LEN (F_OFD_SETLK)   flock S KIND (LOCK_NB)
 *     test S KIND OFF LEN        fcntl(F_GETLK)                 otest S KIND OFF LEN (F_OFD_GETLK)
 *     splice S OFF TO OFF COUNT  out of a file and into one, through a pipe
 *     advise S OFF LEN ADVICE    posix_fadvise                  range S OFF LEN (sync_file_range)
 */
#include <dirent.h>
#include <sys/file.h>

#include "model.h"

static int by_name(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static void list_names(void)
{
    char *names[64];
    int count = 0;
    DIR *directory = opendir(".");
    if (directory == NULL) {
        say_result(-1);
        return;
    }
    for (struct dirent *entry; count < 64 && (entry = readdir(directory)) != NULL;)
        if (entry->d_name[0] != '.' && asprintf(&names[count], "%s:%d", entry->d_name, entry->d_type) > 0)
            count++;
    closedir(directory);
    qsort(names, (size_t)count, sizeof names[0], by_name);
    for (int i = 0; i < count; i++) {
        say(" %s", names[i]);
        free(names[i]);
    }
}

static void lock_record(char **word, int command)
{
    int kind = word[2][0] == 'r' ? F_RDLCK : word[2][0] == 'w' ? F_WRLCK : F_UNLCK;
    struct flock lock = {.l_type = (short)kind, .l_whence = SEEK_SET, .l_start = number(word[3]), .l_len = number(word[4])};
    say_result(fcntl(slot[slot_of(word[1])], command, &lock));
    if (command == F_GETLK || command == F_OFD_GETLK)
        say(" %d %jd %jd", lock.l_type, (intmax_t)lock.l_start, (intmax_t)lock.l_len);
}

/* A pipe holds pages of the file itself, and of a hole none: what comes of a page that goes out and in depends on which it was. */
static int pages_meet(int from, off_t in, int to, off_t out, off_t count)
{
    struct stat one, other;
    return fstat(from, &one) == 0 && fstat(to, &other) == 0 && one.st_ino == other.st_ino &&
           in / PAGE <= (out + count) / PAGE && out / PAGE <= (in + count) / PAGE;
}

/* What fits into a pipe, once. */
static void splice_through(char **word)
{
    int ends[2];
    off_t in = number(word[2]), out = number(word[4]);
    size_t count = (size_t)number(word[5]) % 65536;
    struct stat status;
    int from = slot[slot_of(word[1])], to = slot[slot_of(word[3])];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        _exit(96);
    ssize_t there = splice(from, &in, ends[1], NULL, count, SPLICE_F_NONBLOCK);
    say_result(there);
    if (there > 0 && fstat(to, &status) == 0 && !pages_meet(from, in - there, to, out, there)) {
        if (can_move(from, to))
            clear_tail(to, out + there);
        say_result(splice(ends[0], NULL, to, &out, (size_t)there, SPLICE_F_NONBLOCK));
    }
    say(" %jd %jd", (intmax_t)in, (intmax_t)out);
    close(ends[0]);
    close(ends[1]);
}

static int on_more_names(char **word, int words)
{
    static char target[PAGE];
    struct stat status;
    const char *call = word[0];
    if (strcmp(call, "link") == 0 && words > 2)
        say_result(link(word[1], word[2]));
    else if (strcmp(call, "symlink") == 0 && words > 2)
        say_result(symlink(word[1], word[2]));
    else if (strcmp(call, "readlink") == 0) {
        ssize_t length = readlink(word[1], target, sizeof target - 1);
        say_result(length);
        if (length >= 0)
            say(" %.*s", (int)length, target);
    } else if (strcmp(call, "lstat") == 0) {
        int result = lstat(word[1], &status);
        say_result(result);
        if (result == 0)
            say(" %o links %ju", (unsigned)status.st_mode, (uintmax_t)status.st_nlink);
    } else
        return 0;
    return 1;
}

int on_locks(char **word, int words)
{
    const char *call = word[0];
    if (strcmp(call, "ls") == 0)
        list_names();
    else if (words < 3)
        return 0;
    else if (strcmp(call, "lock") == 0 && words > 4)
        lock_record(word, F_SETLK);
    else if (strcmp(call, "olock") == 0 && words > 4)
        lock_record(word, F_OFD_SETLK);
    else if (strcmp(call, "test") == 0 && words > 4)
        lock_record(word, F_GETLK);
    else if (strcmp(call, "otest") == 0 && words > 4)
        lock_record(word, F_OFD_GETLK);
    else if (strcmp(call, "flock") == 0)
        say_result(flock(slot[slot_of(word[1])],
                         LOCK_NB | (word[2][0] == 's' ? LOCK_SH : word[2][0] == 'x' ? LOCK_EX : LOCK_UN)));
    else if (strcmp(call, "splice") == 0 && words > 5)
        splice_through(word);
    else if (strcmp(call, "advise") == 0 && words > 4) {
        int error = posix_fadvise(slot[slot_of(word[1])], number(word[2]), number(word[3]), (int)number(word[4]));
        errno = error;
        say_result(error == 0 ? 0 : -1);
    } else if (strcmp(call, "range") == 0 && words > 3)
        say_result(sync_file_range(slot[slot_of(word[1])], number(word[2]), number(word[3]),
                                   SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
    else
        return on_more_names(word, words);
    return 1;
}
