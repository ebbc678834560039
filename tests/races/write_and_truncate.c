/*
 * A write that meets a truncation is before it or after it, and never the end of the program.
 *
 *     write_and_truncate FILE TRUNCATIONS
 */
#include "race.h"
#include <stdatomic.h>

enum { PAGES = 2000, WRITERS = 3 };

static int fd;
static atomic_int done;

static void *write_all_over(void *argument)
{
    static const char page[PAGE];
    unsigned seed = (unsigned)(intptr_t)argument;
    while (!done) {
        seed = seed * 1103515245 + 12345;
        size_t count = seed & 64 ? PAGE : 1;
        must(pwrite(fd, page, count, (off_t)((seed >> 8) % PAGES) * PAGE) == (ssize_t)count);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    must(argc == 3);
    pthread_t writer[WRITERS];
    fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    must(fd >= 0);
    for (intptr_t i = 0; i < WRITERS; i++)
        must(pthread_create(&writer[i], NULL, write_all_over, (void *)(i * 77 + 1)) == 0);
    for (int round = 0; round < atoi(argv[2]); round++)
        must(ftruncate(fd, PAGE) == 0 && ftruncate(fd, (off_t)PAGES * PAGE) == 0);
    done = 1;
    for (int i = 0; i < WRITERS; i++)
        pthread_join(writer[i], NULL);
    puts("alive");
    return 0;
}
