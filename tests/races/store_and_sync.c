/*
 * A store that a commit did not take is in the next one, through whichever mapping it was made: a thread commits all
 * the time while another stores twice to each page, and never comes back to it.
 *
 *     store_and_sync FILE PAGES MAPPINGS
 *
 * In the end page N begins with the word N + 1.
 */
#include "race.h"
#include <stdatomic.h>

enum { MAPPINGS_MAX = 16 };

static char *base[MAPPINGS_MAX];
static size_t length;
static atomic_int done;

static void *sync_all_the_time(void *none)
{
    while (!done)
        must(msync(base[0], length, MS_SYNC) == 0);
    return none;
}

int main(int argc, char **argv)
{
    must(argc == 4);
    pthread_t other;
    uint32_t pages = (uint32_t)atoi(argv[2]), mappings = (uint32_t)atoi(argv[3]), seed = 1;
    int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    length = (size_t)pages * PAGE;
    must(fd >= 0 && mappings <= MAPPINGS_MAX && ftruncate(fd, (off_t)length) == 0);
    for (uint32_t i = 0; i < mappings; i++)
        base[i] = shared(fd, 0, length);
    must(pthread_create(&other, NULL, sync_all_the_time, NULL) == 0);
    for (uint32_t page = 0; page < pages; page++)
        for (uint32_t time = 0; time < 2; time++) {
            seed = seed * 1103515245 + 12345;
            char *through = base[(seed >> 20) % mappings];
            store_word(through + (size_t)page * PAGE, time == 0 ? ~page : page + 1);
        }
    done = 1;
    pthread_join(other, NULL);
    must(msync(base[0], length, MS_SYNC) == 0);
    _exit(0);
}
