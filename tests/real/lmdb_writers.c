/* Several processes and threads on one LMDB environment: writers take turns by the process-shared robust mutex in lock.mdb, one
   of them is killed while it holds it, and readers see whole transactions. `lmdb_writers DIR default|writemap`. */
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WRITERS = 3, ROUNDS = 40, KEYS = 20 };

static unsigned flags;
static const char *directory;

static void check(int error, const char *what) {
    if (error) {
        printf("FAIL %s: %s\n", what, mdb_strerror(error));
        fflush(stdout);
        _exit(1);
    }
}

static MDB_env *open_env(void) {
    MDB_env *env;
    check(mdb_env_create(&env), "create");
    check(mdb_env_set_mapsize(env, 32u << 20), "mapsize");
    check(mdb_env_open(env, directory, flags, 0644), "open");
    return env;
}

/* One transaction adds 1 to the counter, and stores KEYS keys that hold its new value. */
static void add_one(MDB_env *env, int writer, int die) {
    MDB_txn *txn;
    MDB_dbi dbi;
    check(mdb_txn_begin(env, NULL, 0, &txn), "begin");
    check(mdb_dbi_open(txn, NULL, 0, &dbi), "dbi");
    MDB_val key = {5, "count"}, value;
    int error = mdb_get(txn, dbi, &key, &value);
    long count = 0;
    if (error != MDB_NOTFOUND) {
        check(error, "get");
        memcpy(&count, value.mv_data, sizeof count);
    }
    count++;
    value = (MDB_val){sizeof count, &count};
    check(mdb_put(txn, dbi, &key, &value, 0), "put count");
    for (int i = 0; i < KEYS; i++) {
        char name[64], text[600];
        snprintf(name, sizeof name, "key %d", i);
        memset(text, 'a' + writer, sizeof text);
        snprintf(text, 32, "%ld", count);
        key = (MDB_val){strlen(name), name};
        value = (MDB_val){sizeof text, text};
        check(mdb_put(txn, dbi, &key, &value, 0), "put");
    }
    if (die)
        kill(getpid(), SIGKILL);
    check(mdb_txn_commit(txn), "commit");
}

/* All keys of a snapshot were stored by one transaction; returns its number. */
static long look(MDB_env *env) {
    MDB_txn *txn;
    MDB_dbi dbi;
    check(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "begin to read");
    check(mdb_dbi_open(txn, NULL, 0, &dbi), "dbi");
    MDB_val key = {5, "count"}, value;
    long count = 0;
    if (mdb_get(txn, dbi, &key, &value) == 0) {
        memcpy(&count, value.mv_data, sizeof count);
        for (int i = 0; i < KEYS; i++) {
            char name[64];
            snprintf(name, sizeof name, "key %d", i);
            key = (MDB_val){strlen(name), name};
            check(mdb_get(txn, dbi, &key, &value), "get a key");
            if (atol(value.mv_data) != count) {
                printf("FAIL a snapshot of %ld holds a key of %ld\n", count, atol(value.mv_data));
                exit(1);
            }
        }
    }
    mdb_txn_abort(txn);
    return count;
}

/* Not that each is newer than the last: a reader that is held up between two loads of lmdb.c gets the transaction after the next,
   which is not published yet, on any file whose sync takes time. */
static void *reader(void *env) {
    while (look(env) < WRITERS * ROUNDS)
        ;
    return NULL;
}

static pid_t spawn(void (*body)(int), int number) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        body(number);
        exit(0);
    }
    return pid;
}

static void writer(int number) {
    MDB_env *env = open_env();
    for (int i = 0; i < ROUNDS; i++)
        add_one(env, number, 0);
    mdb_env_close(env);
}

static void threads_that_read(int number) {
    (void)number;
    MDB_env *env = open_env();
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, reader, env);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    mdb_env_close(env);
}

static void victim(int number) {
    add_one(open_env(), number, 1);
}

static int wait_for(pid_t pid) {
    int status;
    waitpid(pid, &status, 0);
    return status;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    directory = argv[1];
    if (strcmp(argv[2], "writemap") == 0)
        flags = MDB_WRITEMAP;
    pid_t pids[WRITERS + 1];
    for (int i = 0; i < WRITERS; i++)
        pids[i] = spawn(writer, i);
    pids[WRITERS] = spawn(threads_that_read, 0);
    for (int i = 0; i <= WRITERS; i++) {
        int status = wait_for(pids[i]);
        if (status) {
            printf("FAIL process %d: status %#x\n", i, status);
            return 1;
        }
    }
    MDB_env *env = open_env();
    printf("ok: %ld transactions of %d processes\n", look(env), WRITERS);
    int status = wait_for(spawn(victim, 0));
    printf("ok: a writer was killed in a transaction: %d\n", WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    int dead;
    check(mdb_reader_check(env, &dead), "reader check");
    add_one(env, 0, 0);
    printf("ok: the next one takes its place: %ld\n", look(env));
    MDB_stat stat;
    check(mdb_env_stat(env, &stat), "stat");
    printf("ok: %zu entries\n", stat.ms_entries);
    mdb_env_close(env);
    return 0;
}
