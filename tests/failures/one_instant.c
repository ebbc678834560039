/* one_instant PATH: programs that store into a region all the time, in an order from which follows what one instant can look like, while this one
 * commits it. Each line of input is one commit, with the flags that it says; the answer is its epoch, or "err ERRNO". The first answer says
 * "ready". At the end of the input the writers are killed and the longest hold is told.
 *
 * Pages, each of which begins with a number:
 *   0 to 31    four threads (two of each of two children) count their eight pages up one after the other: first >= second >= ... >= first - 1
 *   32, 33     two children take turns: the one stores n + 1 when it sees that the other has n, so page 32 is that of 33, or one more
 *   34 to 41   a thread of a child writes them with pwrite, in the same order as the others; the child has forked meanwhile, and its child,
 *              which does nothing, has none of its writes
 *   42         two robust mutexes: this program holds the one, and a child the other, all the time
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 43, CHAIN = 8 };

static volatile uint64_t *map;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static volatile uint64_t *word(int page) {
    return map + (size_t)page * PAGE / 8;
}

static void *count_up(void *argument) {
    int first = *(int *)argument;
    for (uint64_t number = 1;; number++)
        for (int page = first; page < first + CHAIN; page++)
            __atomic_store_n(word(page), number, __ATOMIC_SEQ_CST);
    return NULL;
}

static void *write_up(void *argument) {
    int fd = *(int *)argument;
    for (uint64_t number = 1;; number++)
        for (int page = 34; page < 34 + CHAIN; page++)
            if (pwrite(fd, &number, sizeof number, (off_t)page * PAGE) != sizeof number)
                fail("pwrite");
    return NULL;
}

static void take_turns(int mine, int other, uint64_t ahead) {
    for (uint64_t number = 1;; number++) {
        while (__atomic_load_n(word(other), __ATOMIC_SEQ_CST) != number - ahead)
            ;
        __atomic_store_n(word(mine), number, __ATOMIC_SEQ_CST);
    }
}

static pthread_mutex_t *mutex(int which) {
    return (pthread_mutex_t *)word(42) + which;
}

static void child(int which, int fd) {
    if (which == 0 && pthread_mutex_lock(mutex(1)) != 0)
        fail("pthread_mutex_lock");
    if (which < 2) {
        static int first[2];
        pthread_t thread;
        first[0] = which * 2 * CHAIN;
        first[1] = first[0] + CHAIN;
        if (pthread_create(&thread, NULL, count_up, &first[0]) != 0)
            fail("pthread_create");
        count_up(&first[1]);
    } else if (which < 4) {
        take_turns(32 + which - 2, 32 + 3 - which, which == 2 ? 1 : 0);
    } else {
        pthread_t thread;
        if (pthread_create(&thread, NULL, write_up, &fd) != 0)
            fail("pthread_create");
        while (__atomic_load_n(word(34 + CHAIN - 1), __ATOMIC_SEQ_CST) < 100)
            usleep(100);
        for (int children = 0; children < 4; children++)
            if (fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                    pause();
            }
        for (;;)
            pause();
    }
}

int main(int argc, char **argv) {
    int (*commit)(int, unsigned, uint64_t *) = (int (*)(int, unsigned, uint64_t *))dlsym(RTLD_DEFAULT, "netmem_commit");
    int (*stats)(uint64_t *, size_t) = (int (*)(uint64_t *, size_t))dlsym(RTLD_DEFAULT, "netmem_stats");
    if (argc != 2 || commit == NULL || stats == NULL)
        return 2;
    int fd = open(argv[1], O_RDWR | O_CREAT, 0644);
    if (fd < 0)
        fail("open");
    if (ftruncate(fd, PAGES * PAGE) != 0)
        fail("ftruncate");
    map = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        fail("mmap");
    pthread_mutexattr_t robust;
    pthread_mutexattr_init(&robust);
    pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&robust, PTHREAD_PROCESS_SHARED);
    for (int which = 0; which < 2; which++)
        pthread_mutex_init(mutex(which), &robust);
    if (pthread_mutex_lock(mutex(0)) != 0)
        fail("pthread_mutex_lock");
    pid_t children[5];
    for (int which = 0; which < 5; which++) {
        children[which] = fork();
        if (children[which] == 0)
            child(which, fd);
    }
    for (int page = 0; page < 42; page += page < 32 ? CHAIN : 1)
        while (__atomic_load_n(word(page), __ATOMIC_SEQ_CST) == 0)
            usleep(100);
    printf("ready %d\n", children[0]);
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin) != NULL) {
        uint64_t epoch;
        if (commit(fd, (unsigned)atoi(line), &epoch) == 0)
            printf("%llu\n", (unsigned long long)epoch);
        else
            printf("err %s\n", strerrorname_np(errno));
        fflush(stdout);
    }
    for (int which = 0; which < 5; which++) {
        kill(children[which], SIGKILL);
        waitpid(children[which], NULL, 0);
    }
    uint64_t counters[23];
    if (stats(counters, sizeof counters) != 0)
        fail("netmem_stats");
    printf("held %llu %llu\n", (unsigned long long)counters[20], (unsigned long long)counters[22]);
    return 0;
}
