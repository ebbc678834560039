/* Mutexes, condition variables, semaphores, barriers and read-write locks that lie in a mapping and are shared by processes, while
   both of them sync it again and again; and a robust mutex whose owner is killed right after a sync. */
#include "program.h"
#include <pthread.h>
#include <semaphore.h>

enum { ROUNDS = 300, PAGES = 8 };

struct shared {
    pthread_mutex_t mutex, robust, inherits;
    pthread_cond_t turned;
    pthread_barrier_t barrier;
    pthread_rwlock_t rwlock;
    sem_t ping, pong;
    int turn, count;
};

static struct shared *shared;

static void sync_now(void)
{
    need(msync(shared, PAGES * PAGE, MS_SYNC) == 0, "msync");
}

static void prepare(void)
{
    pthread_mutexattr_t mutex;
    pthread_condattr_t cond;
    pthread_barrierattr_t barrier;
    pthread_rwlockattr_t rwlock;
    pthread_mutexattr_init(&mutex);
    pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
    need(pthread_mutex_init(&shared->mutex, &mutex) == 0, "mutex");
    pthread_mutexattr_setrobust(&mutex, PTHREAD_MUTEX_ROBUST);
    need(pthread_mutex_init(&shared->robust, &mutex) == 0, "robust mutex");
    pthread_mutexattr_setprotocol(&mutex, PTHREAD_PRIO_INHERIT);
    need(pthread_mutex_init(&shared->inherits, &mutex) == 0, "mutex that inherits priority");
    pthread_condattr_init(&cond);
    pthread_condattr_setpshared(&cond, PTHREAD_PROCESS_SHARED);
    need(pthread_cond_init(&shared->turned, &cond) == 0, "condition");
    pthread_barrierattr_init(&barrier);
    pthread_barrierattr_setpshared(&barrier, PTHREAD_PROCESS_SHARED);
    need(pthread_barrier_init(&shared->barrier, &barrier, 2) == 0, "barrier");
    pthread_rwlockattr_init(&rwlock);
    pthread_rwlockattr_setpshared(&rwlock, PTHREAD_PROCESS_SHARED);
    need(pthread_rwlock_init(&shared->rwlock, &rwlock) == 0, "rwlock");
    need(sem_init(&shared->ping, 1, 0) == 0 && sem_init(&shared->pong, 1, 0) == 0, "semaphores");
    shared->turn = shared->count = 0;
    sync_now();
}

/* What both processes do, as number 0 and number 1. */
static void play(int me)
{
    for (int i = 0; i < ROUNDS; i++) {
        need(pthread_mutex_lock(&shared->mutex) == 0, "lock");
        while (shared->turn != me)
            need(pthread_cond_wait(&shared->turned, &shared->mutex) == 0, "wait");
        shared->turn = !me;
        shared->count++;
        if (i % 4 == 0)
            sync_now();
        need(pthread_cond_broadcast(&shared->turned) == 0 && pthread_mutex_unlock(&shared->mutex) == 0, "broadcast and unlock");
    }
    for (int i = 0; i < ROUNDS; i++) {
        need(sem_post(me ? &shared->ping : &shared->pong) == 0, "sem_post");
        if (i % 4 == 0)
            sync_now();
        need(sem_wait(me ? &shared->pong : &shared->ping) == 0, "sem_wait");
    }
    for (int i = 0; i < ROUNDS; i++) {
        int last = pthread_barrier_wait(&shared->barrier);
        need(last == 0 || last == PTHREAD_BARRIER_SERIAL_THREAD, "barrier");
        if (i % 8 == 0)
            sync_now();
        need((i % 3 ? pthread_rwlock_rdlock : pthread_rwlock_wrlock)(&shared->rwlock) == 0, "rwlock");
        need(pthread_rwlock_unlock(&shared->rwlock) == 0, "rwlock unlock");
        need(pthread_mutex_lock(&shared->inherits) == 0, "lock that inherits");
        if (i % 8 == 0)
            sync_now();
        need(pthread_mutex_unlock(&shared->inherits) == 0, "unlock that inherits");
    }
}

static void *lock_and_sync(void *mutex)
{
    need(pthread_mutex_lock(mutex) == 0, "lock");
    sync_now();
    sync_now();
    return NULL;
}

static void owner_dies(pthread_mutex_t *mutex, int killed, const char *sentence)
{
    pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        if (killed && lock_and_sync(mutex) == NULL)
            raise(SIGKILL);
        need(pthread_create(&thread, NULL, lock_and_sync, mutex) == 0 && pthread_join(thread, NULL) == 0, "a thread");
        _exit(0);
    }
    need(wait_for(child) == (killed ? -SIGKILL : 0), "it ended");
    need(pthread_mutex_lock(mutex) == EOWNERDEAD && pthread_mutex_consistent(mutex) == 0, sentence);
    check(pthread_mutex_unlock(mutex) == 0 && pthread_mutex_lock(mutex) == 0 && pthread_mutex_unlock(mutex) == 0, sentence);
}

/* A process of its own stores beside a held robust mutex, syncs, and is killed. */
static pid_t fork_and_store(const char *path)
{
    pid_t child = fork();
    if (child != 0)
        return child;
    shared = (struct shared *)map_or_fail(make_pages(path, PAGES), PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    prepare();
    need(pthread_mutex_lock(&shared->robust) == 0, "lock");
    sync_now();
    sync_now();
    ((char *)shared)[PAGE - 1] = 'x';
    sync_now();
    raise(SIGKILL);
    _exit(1);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "process_shared_locks");
    if (command.write)
        need(wait_for(fork_and_store(path)) == -SIGKILL, "killed");
    if (!command.check)
        return 0;
    int fd = open_or_fail(path, O_RDWR);
    shared = (struct shared *)map_or_fail(fd, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    check(((char *)shared)[PAGE - 1] == 'x', "what was stored beside a held mutex was synced");
    prepare();
    pid_t child = fork();
    if (child == 0) {
        play(1);
        _exit(0);
    }
    play(0);
    check(wait_for(child) == 0 && shared->count == 2 * ROUNDS, "two processes took turns");
    owner_dies(&shared->robust, 1, "a robust mutex whose owner is killed");
    owner_dies(&shared->robust, 0, "a robust mutex whose owner, a thread, ends");
    owner_dies(&shared->inherits, 1, "and one that inherits priority");
    return unlink(path) != 0;
}
