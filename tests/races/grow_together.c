/*
 * A write beyond the end makes zeros between the old end and itself, and nowhere else: two threads write neighbouring
 * chunks of one page at the end of a file, again and again.
 *
 *     grow_together FILE CHUNKS
 *
 * Chunk N is 700 bytes of N | 1.
 */
#include "race.h"

enum { CHUNK = 700 };

static int fd, chunks;
static pthread_barrier_t start;

static void *write_every_other(void *first)
{
    char chunk[CHUNK];
    for (int number = (int)(intptr_t)first; number < chunks; number += 2) {
        pthread_barrier_wait(&start);
        memset(chunk, number | 1, CHUNK);
        must(pwrite(fd, chunk, CHUNK, (off_t)number * CHUNK) == CHUNK);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    must(argc == 3);
    pthread_t thread[2];
    int wrong = 0;
    chunks = atoi(argv[2]) & ~1;
    fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
    must(fd >= 0 && pthread_barrier_init(&start, NULL, 2) == 0);
    for (intptr_t i = 0; i < 2; i++)
        must(pthread_create(&thread[i], NULL, write_every_other, (void *)i) == 0);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    for (int number = 0; number < chunks; number++) {
        char chunk[CHUNK], right[CHUNK];
        memset(right, number | 1, CHUNK);
        must(pread(fd, chunk, CHUNK, (off_t)number * CHUNK) == CHUNK);
        wrong += memcmp(chunk, right, CHUNK) != 0;
    }
    printf("%d wrong\n", wrong);
    return wrong != 0;
}
