/* Two shared mappings of one file, through one descriptor and through two, show the same bytes. */
#include "program.h"

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "two_mappings_agree");
    if (command.write)
        close(make_pages(path, 8));
    if (!command.check)
        return 0;

    int fd = open_or_fail(path, O_RDWR), other_fd = open_or_fail(path, O_RDWR);
    char *one = map_or_fail(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    char *two = map_or_fail(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    char *three = map_or_fail(other_fd, 8 * PAGE, PROT_READ, MAP_SHARED);
    check(one != two && two != three && one != three, "three mappings have three addresses");

    one[0] = '1';
    check(two[0] == '1' && three[0] == '1', "a store to a page is seen through the others");
    two[3 * PAGE + 5] = '2';
    check(one[3 * PAGE + 5] == '2' && three[3 * PAGE + 5] == '2', "and the other way round");
    check(one[3 * PAGE + 4] == 'D' && one[3 * PAGE + 6] == 'D', "the bytes beside a store are kept");
    check(all(three + 7 * PAGE, PAGE, 'H') && all(one + 7 * PAGE, PAGE, 'H'), "an untouched page agrees");

    need(munmap(one, 8 * PAGE) == 0 && close(fd) == 0, "munmap and close");
    two[6 * PAGE] = '6';
    check(three[6 * PAGE] == '6', "they agree after the first mapping and its descriptor are gone");
    char *again = map_or_fail(other_fd, 8 * PAGE, PROT_READ, MAP_SHARED);
    check(memcmp(again, two, 8 * PAGE) == 0, "a later mapping shows all of it");
    return unlink(path) != 0;
}
