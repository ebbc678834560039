/*
 * wordcount: maps a file for reading and counts its lines, words and bytes, as wc does.
 *
 *     ./wordcount examples-c/expected/wordcount.in
 *
 *     cp examples-c/expected/wordcount.in /tmp/words && ./wordcount /tmp/words
 *     netmem run -- sh -c 'cp examples-c/expected/wordcount.in /netmem/words && ./wordcount'
 *
 * All print the lines, words and bytes of the file:
 *
 *     4 21 119
 *
 * No byte is read with read(2): under netmem each page comes from the server when the loop gets to it, and
 * those after it while the loop counts.
 */
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    exit(1);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/netmem/words";
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        die(path);
    struct stat status;
    if (fstat(fd, &status) != 0)
        die("fstat");

    size_t bytes = (size_t)status.st_size, lines = 0, words = 0;
    if (bytes > 0) { /* an empty file can't be mapped */
        const unsigned char *text = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (text == MAP_FAILED)
            die("mmap");
        int inside = 0;
        for (size_t i = 0; i < bytes; i++) {
            lines += text[i] == '\n';
            if (isspace(text[i])) {
                inside = 0;
            } else if (!inside) {
                inside = 1;
                words++;
            }
        }
    }
    printf("%zu %zu %zu\n", lines, words, bytes);
    return 0;
}
