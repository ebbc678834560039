/*
 * What was appended is in a commit that began after it: a file grows in the middle of its last page while another
 * thread commits it, and no commit may take the page with the old end and call it clean.
 *
 *     append_and_sync FILE RECORDS
 *
 * Record N is 3000 bytes of N | 1.
 */
#include "race.h"
#include <stdatomic.h>

static int fd;
static atomic_int done;

static void *sync_all_the_time(void *none)
{
    while (!done)
        must(fsync(fd) == 0);
    return none;
}

int main(int argc, char **argv)
{
    must(argc == 3);
    char record[3000];
    pthread_t other;
    fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600);
    must(fd >= 0 && pthread_create(&other, NULL, sync_all_the_time, NULL) == 0);
    for (int number = 0; number < atoi(argv[2]); number++) {
        memset(record, number | 1, sizeof record);
        must(write(fd, record, sizeof record) == sizeof record);
    }
    done = 1;
    pthread_join(other, NULL);
    return fsync(fd) != 0;
}
