/*
 * Files that were closed cost no descriptor each: a program with few of them opens many files in turn.
 *
 *     descriptors_come_back FILE TIMES
 */
#include "race.h"
#include <sys/resource.h>

int main(int argc, char **argv)
{
    must(argc == 3);
    struct rlimit limit = {192, 192};
    must(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (int number = 0; number < atoi(argv[2]); number++) {
        char path[512];
        snprintf(path, sizeof path, "%s-%d", argv[1], number);
        int fd = open(path, O_RDWR | O_CREAT, 0600);
        must(fd >= 0 && pwrite(fd, "x", 1, 0) == 1 && close(fd) == 0 && unlink(path) == 0);
        must((fd = open("/dev/null", O_RDONLY)) >= 0 && close(fd) == 0);
    }
    puts("enough");
    return 0;
}
