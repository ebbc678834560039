/*
 * A thread reads into a mapping and writes from it, while another changes the file's size, the mapping's protection, or maps it
 * anew: a call moves bytes or says EFAULT, and nothing is a signal.
 *
 *     buffer_and_change FILE size|protection|mapping ROUNDS
 */
#include "race.h"

enum { PAGES = 16 };

static char *base, what;
static int fd;
static volatile int stop;

static void *change(void *none)
{
    const int both = PROT_READ | PROT_WRITE;
    while (!stop) {
        char *middle = base + 4 * PAGE;
        if (what == 's')
            must(ftruncate(fd, PAGE) == 0 && ftruncate(fd, PAGES * PAGE) == 0);
        else if (what == 'p')
            must(mprotect(middle, 8 * PAGE, PROT_NONE) == 0 && mprotect(middle, 8 * PAGE, both) == 0);
        else
            must(mmap(middle, 4 * PAGE, both, MAP_SHARED | MAP_FIXED, fd, 4 * PAGE) == middle);
    }
    return none;
}

int main(int argc, char **argv)
{
    static char sink[PAGES * PAGE];
    pthread_t other;
    int out[2], others = 0;
    must(argc == 4);
    what = argv[2][0];
    fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    int zeros = open("/dev/zero", O_RDONLY);
    must(fd >= 0 && zeros >= 0 && ftruncate(fd, PAGES * PAGE) == 0 && pipe2(out, O_NONBLOCK) == 0);
    base = shared(fd, 0, PAGES * PAGE);
    must(pthread_create(&other, NULL, change, NULL) == 0);
    for (int round = 0; round < atoi(argv[3]); round++) {
        others += write(out[1], base + 2 * PAGE, 12 * PAGE) < 0 && errno != EFAULT;
        while (read(out[0], sink, sizeof sink) > 0)
            ;
        others += read(zeros, base + 2 * PAGE, 12 * PAGE) < 0 && errno != EFAULT;
    }
    stop = 1;
    must(pthread_join(other, NULL) == 0);
    printf("%d other errors\n", others);
    return 0;
}
