/* What msync accepts and refuses, and with which errno. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "msync_errors");
    if (command.write)
        close(make_pages(path, 8));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    map[0] = '0';
    check(msync(map + 1, PAGE, MS_SYNC) == -1 && errno == EINVAL, "an unaligned address is EINVAL");
    check(msync(map, PAGE, MS_SYNC | MS_ASYNC) == -1 && errno == EINVAL, "MS_SYNC with MS_ASYNC is EINVAL");
    check(msync(map, PAGE, 0x100) == -1 && errno == EINVAL, "an unknown flag is EINVAL");
    check(msync(map, 8 * PAGE, MS_SYNC) == 0, "MS_SYNC works");
    check(msync(map, 8 * PAGE, MS_ASYNC) == 0, "MS_ASYNC works");
    check(msync(map, 8 * PAGE, MS_SYNC | MS_INVALIDATE) == 0 && map[0] == '0', "MS_INVALIDATE keeps stores");
    check(msync(map, 8 * PAGE, 0) == 0, "no flag works");
    check(msync(map, 0, MS_SYNC) == 0, "length 0 works");
    check(msync(map + PAGE, 100, MS_SYNC) == 0, "a length that is no multiple of a page works");

    need(munmap(map + 3 * PAGE, PAGE) == 0, "munmap");
    map[6 * PAGE] = '6';
    check(msync(map, 8 * PAGE, MS_SYNC) == -1 && errno == ENOMEM, "a range with a hole is ENOMEM");
    check(msync(map, 3 * PAGE, MS_SYNC) == 0 && msync(map + 4 * PAGE, 4 * PAGE, MS_SYNC) == 0,
          "the parts beside it work");
    need(munmap(map, 8 * PAGE) == 0, "munmap");
    check(msync(map, PAGE, MS_SYNC) == -1 && errno == ENOMEM, "nothing mapped at all is ENOMEM");

    char *read_only = map_or_fail(fd, 8 * PAGE, PROT_READ, MAP_SHARED);
    check(msync(read_only, 8 * PAGE, MS_SYNC) == 0 && read_only[6 * PAGE] == '6', "a read-only one works");
    return unlink(path) != 0;
}
