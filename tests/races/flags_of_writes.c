/*
 * Where a write goes is what its own flags say, over the descriptor's: what it stored is committed.
 *
 *     flags_of_writes FILE
 *
 * FILE is three pages and a hundred bytes.
 */
#include "race.h"
#include <sys/uio.h>

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif

int main(int argc, char **argv)
{
    must(argc == 2);
    struct iovec word = {"mark", 4};
    int fd = open(argv[1], O_RDWR), end = open(argv[1], O_RDWR | O_APPEND);
    must(fd >= 0 && end >= 0);
    must(pwritev2(fd, &word, 1, 0, RWF_APPEND) == 4);
    if (pwritev2(end, &word, 1, PAGE, RWF_NOAPPEND) != 4) {
        /* Before Linux 6.9. */
        must(errno == EOPNOTSUPP && pwrite(fd, "mark", 4, PAGE) == 4);
    }
    must(fsync(fd) == 0);
    return 0;
}
