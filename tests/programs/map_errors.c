/* What mmap and munmap refuse, and with which errno. */
#include "program.h"

static int fails(void *addr, size_t length, int prot, int flags, int fd, off_t offset, int with)
{
    return mmap(addr, length, prot, flags, fd, offset) == MAP_FAILED && errno == with;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "map_errors");
    if (command.write)
        close(make_pages(path, 2));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR), writer = open_or_fail(path, O_WRONLY);
    int reader = open_or_fail(path, O_RDONLY), closed = open_or_fail(path, O_RDWR);
    int dir = open_or_fail(command.dir, O_RDONLY | O_DIRECTORY), both = PROT_READ | PROT_WRITE;
    close(closed);
    check(fails(NULL, 0, PROT_READ, MAP_SHARED, fd, 0, EINVAL), "length 0 is EINVAL");
    check(fails(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 100, EINVAL), "an unaligned offset is EINVAL");
    check(fails((void *)0x10000001, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0, EINVAL),
          "an unaligned fixed address is EINVAL");
    check(fails(NULL, PAGE, PROT_READ, 0, fd, 0, EINVAL), "neither MAP_SHARED nor MAP_PRIVATE is EINVAL");
    check(fails(NULL, PAGE, PROT_READ, MAP_SHARED, -1, 0, EBADF), "descriptor -1 is EBADF");
    check(fails(NULL, PAGE, PROT_READ, MAP_SHARED, closed, 0, EBADF), "a closed descriptor is EBADF");
    check(fails(NULL, PAGE, both, MAP_SHARED, reader, 0, EACCES), "a read-only one, written, is EACCES");
    check(fails(NULL, PAGE, PROT_READ, MAP_SHARED, writer, 0, EACCES), "a write-only one is EACCES");
    check(fails(NULL, PAGE, PROT_READ, MAP_PRIVATE, writer, 0, EACCES), "privately too");
    check(fails(NULL, PAGE, PROT_READ, MAP_SHARED, dir, 0, ENODEV), "a directory is ENODEV");
    check(fails(NULL, SIZE_MAX, PROT_READ, MAP_SHARED, fd, 0, ENOMEM), "as many bytes as can be is ENOMEM");
    check(fails(NULL, (size_t)1 << 62, PROT_READ, MAP_SHARED, fd, 0, ENOMEM), "so are 2^62 bytes");
    check(fails(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | 0x2000000, fd, 0, EOPNOTSUPP),
          "an unknown flag with MAP_SHARED_VALIDATE is EOPNOTSUPP");

    char *map = map_or_fail(fd, 2 * PAGE, both, MAP_SHARED);
    check(fails(map, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0, EEXIST),
          "MAP_FIXED_NOREPLACE over a mapping is EEXIST");
    check(munmap(map + 1, PAGE) == -1 && errno == EINVAL, "munmap of an unaligned address is EINVAL");
    check(munmap(map, 0) == -1 && errno == EINVAL, "munmap of length 0 is EINVAL");
    check(all(map, PAGE, 'A') && all(map + PAGE, PAGE, 'B'), "after all that the mapping is whole");
    check(munmap(map, 2 * PAGE) == 0 && munmap(map, 2 * PAGE) == 0, "munmap of what is not mapped is 0");
    return unlink(path) != 0;
}
