/*
 * hello: two mappings of one file show the same bytes, and msync makes them stay.
 *
 *     ./hello /tmp/hello                  on a local file
 *     netmem run -- ./hello               on /netmem/hello: one page on the server
 *
 * Both print, every time:
 *
 *     stored through the first mapping:  hello, far page
 *     loaded through the second mapping: hello, far page
 *     read from the descriptor:          hello, far page
 *     msync: it is kept
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096 };

static void die(const char *what)
{
    perror(what);
    exit(1);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/netmem/hello";
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0)
        die(path);
    if (ftruncate(fd, PAGE_BYTES) != 0)
        die("ftruncate");

    char *first = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *second = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (first == MAP_FAILED || second == MAP_FAILED)
        die("mmap");

    strcpy(first, "hello, far page");
    printf("stored through the first mapping:  %s\n", first);
    printf("loaded through the second mapping: %s\n", second);

    char text[32] = "";
    if (pread(fd, text, sizeof text - 1, 0) < 0)
        die("pread");
    printf("read from the descriptor:          %s\n", text);

    if (msync(first, PAGE_BYTES, MS_SYNC) != 0)
        die("msync");
    puts("msync: it is kept");

    munmap(second, PAGE_BYTES);
    munmap(first, PAGE_BYTES);
    if (close(fd) != 0)
        die("close");
    return 0;
}
