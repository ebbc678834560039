/* What write and pwrite wrote is what a mapping shows, in pages that are there and in those that are not. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "write_then_load");
    if (command.write)
        close(make_pages(path, 6));
    if (!command.check)
        return 0;

    char page[PAGE];
    memset(page, 'w', PAGE);
    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, 7 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    check(map[0] == 'A', "the first page shows what the file had");
    check(write(fd, "new", 3) == 3 && memcmp(map, "newA", 4) == 0, "write to a page that was loaded is seen");
    check(pwrite(fd, "new", 3, 2 * PAGE + 10) == 3 && memcmp(map + 2 * PAGE + 9, "CnewC", 5) == 0,
          "pwrite to a page that was not is seen");
    check(pwrite(fd, page, PAGE, 3 * PAGE) == PAGE && all(map + 3 * PAGE, PAGE, 'w'), "so is a whole page");
    check(pwrite(fd, page, PAGE, 4 * PAGE + PAGE / 2) == PAGE && all(map + 4 * PAGE, PAGE / 2, 'E')
              && all(map + 4 * PAGE + PAGE / 2, PAGE, 'w') && all(map + 5 * PAGE + PAGE / 2, PAGE / 2, 'F'),
          "so are two halves, with their other halves as they were");
    check(pwrite(fd, "end", 3, 6 * PAGE) == 3 && memcmp(map + 6 * PAGE, "end", 4) == 0,
          "a write that grows the file shows in the mapping that was longer");
    check(lseek(fd, 0, SEEK_CUR) == 3, "pwrite left the offset where write put it");
    return unlink(path) != 0;
}
