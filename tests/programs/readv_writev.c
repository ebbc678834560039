/* readv, writev, preadv and pwritev, with buffers that lie in mappings of the same file too. */
#include "program.h"
#include <sys/uio.h>

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "readv_writev");
    if (command.write)
        close(make_pages(path, 8));
    if (!command.check)
        return 0;

    char head[10], body[PAGE], tail[10];
    struct iovec parts[3] = {{head, 10}, {body, PAGE}, {tail, 10}};
    int fd = open_or_fail(path, O_RDWR);
    check(readv(fd, parts, 3) == PAGE + 20 && all(head, 10, 'A') && body[0] == 'A' && body[PAGE - 1] == 'B'
              && all(tail, 10, 'B'), "readv spreads two pages over three buffers");
    check(lseek(fd, 0, SEEK_CUR) == PAGE + 20, "and moves the offset by as much");
    check(preadv(fd, parts, 3, 3 * PAGE - 5) == PAGE + 20 && memcmp(head, "CCCCCDDDDD", 10) == 0
              && all(body, PAGE - 5, 'D') && all(tail, 10, 'E'), "preadv reads at its own offset");

    struct iovec out[2] = {{(void *)"gather", 6}, {(void *)"ed", 2}};
    check(pwritev(fd, out, 2, 5 * PAGE - 4) == 8, "pwritev writes across two pages");
    char *map = map_or_fail(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    check(memcmp(map + 5 * PAGE - 5, "EgatheredF", 10) == 0, "a mapping shows it");
    check(writev(fd, out, 2) == 8 && memcmp(map + PAGE + 19, "BgatheredB", 10) == 0,
          "writev writes at the offset");

    struct iovec inside[2] = {{map + 6 * PAGE, 10}, {map + 7 * PAGE, 10}};
    check(preadv(fd, inside, 2, 2 * PAGE) == 20 && all(map + 6 * PAGE, 10, 'C') && map[6 * PAGE + 10] == 'G'
              && all(map + 7 * PAGE, 10, 'C') && map[7 * PAGE + 10] == 'H',
          "preadv into untouched mapped pages");
    check(pwritev(fd, inside, 2, 0) == 20 && all(map, 20, 'C') && map[20] == 'A',
          "pwritev from mapped pages");
    return unlink(path) != 0;
}
