/* Threads and processes that read through one shared offset: each record comes to one of them, whole, and none is zeros. */
#include "program.h"

#include <pthread.h>

enum { RECORDS = 3000, RECORD = 100, THREADS = 3 };

static unsigned char *came; /* how often each record came */

static void *reader(void *argument)
{
    int fd = *(int *)argument;
    char record[RECORD + 1] = "";
    for (;;) {
        ssize_t count = read(fd, record, RECORD);
        if (count == 0)
            return NULL;
        int number = count == RECORD ? atoi(record) : -1;
        if (number < 1 || number > RECORDS || record[RECORD - 1] != '\n') {
            came[0] = 1;
            return NULL;
        }
        __atomic_fetch_add(&came[number], 1, __ATOMIC_RELAXED);
    }
}

static void read_by_threads(int fd)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        need(pthread_create(&threads[i], NULL, reader, &fd) == 0, "pthread_create");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "shared_offset_readers");
    if (command.write) {
        int fd = open_or_fail(path, O_RDWR | O_CREAT | O_TRUNC);
        char record[RECORD + 1];
        for (int i = 1; i <= RECORDS; i++) {
            snprintf(record, sizeof record, "%0*d\n", RECORD - 1, i);
            need(write(fd, record, RECORD) == RECORD, "write");
        }
        close(fd);
    }
    if (!command.check)
        return 0;
    came = mmap(NULL, RECORDS + 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    need(came != MAP_FAILED, "mmap");
    int fd = open_or_fail(path, O_RDONLY);
    pid_t child = fork();
    if (child == 0) {
        read_by_threads(fd);
        _exit(0);
    }
    read_by_threads(fd);
    check(wait_for(child) == 0 && came[0] == 0, "whole records come");
    int once = 1;
    for (int i = 1; i <= RECORDS; i++)
        once &= came[i] == 1;
    check(once, "each to one reader");
    check(lseek(fd, 0, SEEK_CUR) == (off_t)RECORDS * RECORD, "the offset is at the end");
    return unlink(path) != 0;
}
