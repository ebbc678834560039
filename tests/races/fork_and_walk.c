/*
 * A child may walk a tree with fts(3) while its parent's threads were walking when it was made.
 *
 *     fork_and_walk DIRECTORY FORKS
 */
#include "race.h"
#include <fts.h>
#include <stdatomic.h>

static char *tree[2];
static atomic_int done;

static int entries(void)
{
    FTS *walk = fts_open(tree, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    int found = 0;
    for (int i = 0; walk != NULL && i < 1000; i++)
        found += fts_read(walk) != NULL;
    return walk != NULL && fts_close(walk) == 0 ? found : -1;
}

static void *walk_all_the_time(void *none)
{
    while (!done)
        must(entries() == 2);
    return none;
}

int main(int argc, char **argv)
{
    must(argc == 3 && mkdir(argv[1], 0700) == 0);
    tree[0] = argv[1];
    pthread_t thread[3];
    for (int i = 0; i < 3; i++)
        must(pthread_create(&thread[i], NULL, walk_all_the_time, NULL) == 0);
    for (int number = 0; number < atoi(argv[2]); number++) {
        int status = -1;
        pid_t child = fork();
        if (child == 0)
            _exit(entries() != 2);
        must(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    }
    done = 1;
    for (int i = 0; i < 3; i++)
        must(pthread_join(thread[i], NULL) == 0);
    puts("alive");
    return 0;
}
