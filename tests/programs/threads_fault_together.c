/* Sixteen threads load all pages of 4 MiB at once, each in its own order, and store into its own bytes. */
#include "program.h"
#include <pthread.h>

enum { PAGES = 1024, THREADS = 16, WORDS = PAGE / 8 };

static uint64_t *map;
static pthread_barrier_t start;

static uint64_t pattern(size_t page, size_t word)
{
    return (page * WORDS + word + 1) * 0x9e3779b97f4a7c15u;
}

static void *work(void *argument)
{
    size_t thread = (size_t)argument, wrong = 0;
    pthread_barrier_wait(&start);
    for (size_t i = 0; i < PAGES; i++) {
        size_t page = ((i + 5 * thread) * (2 * thread + 1)) % PAGES;
        for (size_t word = THREADS; word < WORDS; word += 31)
            wrong += map[page * WORDS + word] != pattern(page, word);
        wrong += map[page * WORDS + thread] != pattern(page, thread);
        map[page * WORDS + thread] = thread;
    }
    return (void *)wrong;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "threads_fault_together");
    if (command.write) {
        int fd = open_or_fail(path, O_RDWR | O_CREAT | O_TRUNC);
        need(ftruncate(fd, PAGES * PAGE) == 0, "ftruncate");
        uint64_t *all = (uint64_t *)(void *)map_or_fail(fd, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
        for (size_t i = 0; i < PAGES * WORDS; i++)
            all[i] = pattern(i / WORDS, i % WORDS);
        check(msync(all, PAGES * PAGE, MS_SYNC) == 0 && close(fd) == 0, "1024 pages of pattern are written");
    }
    if (!command.check)
        return 0;

    pthread_t threads[THREADS];
    size_t wrong = 0, lost = 0;
    int fd = open_or_fail(path, O_RDWR);
    map = (uint64_t *)(void *)map_or_fail(fd, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    pthread_barrier_init(&start, NULL, THREADS);
    for (size_t i = 0; i < THREADS; i++)
        need(pthread_create(&threads[i], NULL, work, (void *)i) == 0, "pthread_create");
    for (size_t i = 0; i < THREADS; i++) {
        void *found;
        need(pthread_join(threads[i], &found) == 0, "pthread_join");
        wrong += (size_t)found;
    }
    check(wrong == 0, "16 threads find every page right");
    for (size_t page = 0; page < PAGES; page++)
        for (size_t i = 0; i < THREADS; i++)
            lost += map[page * WORDS + i] != i;
    check(lost == 0, "and no store is lost");
    check(msync(map, PAGES * PAGE, MS_SYNC) == 0, "msync");
    return unlink(path) != 0;
}
