/*
 * A child may call what its parent's threads were calling when it was made: stat of a relative name, in a program
 * that uses no region.
 *
 *     fork_and_stat FORKS
 */
#include "race.h"
#include <stdatomic.h>

static atomic_int done;

static void *stat_all_the_time(void *none)
{
    struct stat status;
    while (!done)
        stat("no-such-name", &status);
    return none;
}

int main(int argc, char **argv)
{
    must(argc == 2);
    pthread_t thread[3];
    for (int i = 0; i < 3; i++)
        must(pthread_create(&thread[i], NULL, stat_all_the_time, NULL) == 0);
    for (int number = 0; number < atoi(argv[1]); number++) {
        struct stat status;
        pid_t child = fork();
        if (child == 0)
            _exit(stat("no-such-name", &status) == 0);
        int end = 1;
        must(child > 0 && waitpid(child, &end, 0) == child && end == 0);
    }
    done = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
    puts("alive");
    return 0;
}
