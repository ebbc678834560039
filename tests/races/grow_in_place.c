/*
 * A mapping grows and shrinks where it lies, while two threads load and store in the part that it always has.
 *
 *     grow_in_place FILE
 */
#include "race.h"

enum { PAGES = 16, ROUNDS = 1500 };

static char *base;
static volatile int stop;
static volatile int wrong;

static void *work(void *stores)
{
    while (!stop)
        for (int i = 0; i < PAGES; i++) {
            wrong += ((volatile char *)base)[i * PAGE] != 'a' + i;
            if (stores)
                ((volatile char *)base)[i * PAGE + 1] = (char)i;
        }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t other[2];
    must(argc == 2);
    int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    must(fd >= 0 && ftruncate(fd, 4 * PAGES * PAGE) == 0);
    /* Room behind it. */
    base = mmap((void *)0x10000000000, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    must(base != MAP_FAILED);
    for (int i = 0; i < PAGES; i++)
        base[i * PAGE] = (char)('a' + i);
    for (int i = 0; i < 2; i++)
        must(pthread_create(&other[i], NULL, work, i ? base : NULL) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        must(mremap(base, PAGES * PAGE, 4 * PAGES * PAGE, 0) == base);
        base[3 * PAGES * PAGE] = (char)round;
        if (round % 16 == 0)
            must(msync(base, 4 * PAGES * PAGE, MS_SYNC) == 0);
        must(mremap(base, 4 * PAGES * PAGE, PAGES * PAGE, 0) == base);
    }
    stop = 1;
    for (int i = 0; i < 2; i++)
        must(pthread_join(other[i], NULL) == 0);
    char last;
    must(pread(fd, &last, 1, 3 * PAGES * PAGE) == 1);
    printf("%d wrong, last %d\n", wrong, last == (char)(ROUNDS - 1));
    return 0;
}
