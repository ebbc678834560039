/*
 * lookups FILE fill: makes an LMDB of 20,000 keys. lookups FILE: asks for 12,000 of them as a law of Zipf has it, with scans of 8,000 keys
 * between. tests/tools/record-touches.sh calls it.
 */
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS = 20000, LOOKUPS = 12000, SCANNED = 8000 };

static unsigned long long state = 88172645463325252;

/* From 0 to 1. */
static double dice(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) / 9007199254740992.0;
}

static void check(int error)
{
    if (error != 0) {
        fprintf(stderr, "lookups: %s\n", mdb_strerror(error));
        exit(1);
    }
}

static void fill(MDB_txn *txn, MDB_dbi dbi)
{
    char value[300] = {7};
    for (int i = 0; i < KEYS; i++) {
        char name[16];
        snprintf(name, sizeof name, "key%08d", i * 7919 % KEYS);
        MDB_val key = {11, name}, data = {(size_t)(100 + dice() * 200), value};
        check(mdb_put(txn, dbi, &key, &data, 0));
    }
    check(mdb_txn_commit(txn));
}

static void scan(MDB_txn *txn, MDB_dbi dbi)
{
    MDB_cursor *cursor;
    char name[16];
    snprintf(name, sizeof name, "key%08d", (int)(dice() * KEYS / 2));
    MDB_val key = {11, name}, data;
    check(mdb_cursor_open(txn, dbi, &cursor));
    int found = mdb_cursor_get(cursor, &key, &data, MDB_SET_RANGE);
    for (int i = 0; i < SCANNED && found == 0; i++)
        found = mdb_cursor_get(cursor, &key, &data, MDB_NEXT);
    mdb_cursor_close(cursor);
}

int main(int argc, char **argv)
{
    static double sums[KEYS];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    if (argc < 2)
        return 2;
    check(mdb_env_create(&env));
    check(mdb_env_set_mapsize(env, 64 << 20));
    check(mdb_env_open(env, argv[1], MDB_NOSUBDIR, 0600));
    check(mdb_txn_begin(env, NULL, argc > 2 ? 0 : MDB_RDONLY, &txn));
    check(mdb_dbi_open(txn, NULL, 0, &dbi));
    if (argc > 2) {
        fill(txn, dbi);
        return 0;
    }
    double sum = 0;
    for (int i = 0; i < KEYS; i++)
        sums[i] = sum += 1 / (i + 1.0);
    for (int i = 0; i < LOOKUPS; i++) {
        double at = dice() * sum;
        int rank = 0;
        for (int step = 1 << 14; step > 0; step /= 2)
            if (rank + step <= KEYS && sums[rank + step - 1] < at)
                rank += step;
        char name[16];
        snprintf(name, sizeof name, "key%08d", (int)((long long)rank * 1367 % KEYS));
        MDB_val key = {11, name}, data;
        check(mdb_get(txn, dbi, &key, &data));
        if (i % 1500 == 700)
            scan(txn, dbi);
    }
    return 0;
}
