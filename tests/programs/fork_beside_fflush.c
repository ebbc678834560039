/* fork in one thread, while another flushes all its streams, one of them on the file, and a third looks at the file: nobody waits
   for ever, and the children go on with both. */
#include "program.h"
#include <pthread.h>
#include <stdatomic.h>

enum { FORKS = 150 };

static atomic_int done;
static FILE *stream;
static const char *path;

static void *flushes(void *unused)
{
    (void)unused;
    while (!done) {
        fputs("0123456789abcdef", stream);
        fflush(NULL);
    }
    return NULL;
}

static void *looks(void *unused)
{
    (void)unused;
    struct stat status;
    char byte;
    int fd = open_or_fail(path, O_RDONLY);
    while (!done)
        need(stat(path, &status) == 0 && pread(fd, &byte, 1, 0) >= 0, "stat");
    return NULL;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    if (!command.check)
        return 0;

    path = path_in(command.dir, "fork_beside_fflush");
    stream = fopen(path, "w+");
    need(stream != NULL, "fopen");
    pthread_t threads[2];
    need(pthread_create(&threads[0], NULL, flushes, NULL) == 0 && pthread_create(&threads[1], NULL, looks, NULL) == 0, "threads");
    int right = 0;
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0) {
            struct stat status;
            _exit(stat(path, &status) == 0 && fflush(NULL) == 0 ? 0 : 1);
        }
        right += wait_for(child) == 0;
    }
    done = 1;
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    check(right == FORKS, "every child flushed and looked");
    fclose(stream);
    return unlink(path) != 0;
}
