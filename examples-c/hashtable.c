/*
 * hashtable: a hash table in a mapped file, which grows in place with ftruncate and a new mapping.
 *
 *     ./hashtable -f /tmp/table put colour blue         on a local file
 *     ./hashtable -f /tmp/table get colour
 *     netmem run -- ./hashtable put colour blue         on /netmem/table
 *     netmem run -- ./hashtable get colour
 *     netmem run -- ./hashtable stress 10000            puts 10,000 keys and reads them back
 *
 * put prints "colour = blue", get prints "blue" (or "no such key" and exits 1). stress 10000 on a new file
 * prints:
 *
 *     put 10000 keys: 10000 in the table, 16384 slots
 *     got 10000 keys: 0 missing, 0 wrong
 *
 * Each command ends with msync(MS_SYNC). Under netmem that is one commit, so whoever dies in the middle of
 * a growth leaves the table as it was before the command.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEY_BYTES = 28, VALUE_BYTES = 36, SLOTS_FIRST = 64 };

static const uint64_t MAGIC = 0x31656c6261746d6e; /* "nmtable1" */

struct slot { /* empty while key[0] is 0, so that a hole is an empty part of the table */
    char key[KEY_BYTES];
    char value[VALUE_BYTES];
};

struct table {
    uint64_t magic, slots, used, unused[509];
    struct slot slot[]; /* a power of two of them, from the second page on */
};

static int fd;
static struct table *table;
static size_t mapped_bytes;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void map_slots(uint64_t slots)
{
    if (table != NULL && munmap(table, mapped_bytes) != 0)
        die("munmap");
    mapped_bytes = sizeof *table + slots * sizeof(struct slot);
    if (ftruncate(fd, (off_t)mapped_bytes) != 0)
        die("ftruncate");
    table = mmap(NULL, mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (table == MAP_FAILED)
        die("mmap");
    table->slots = slots;
}

static void open_table(const char *path)
{
    struct stat status;
    fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || lockf(fd, F_LOCK, 0) != 0 || fstat(fd, &status) != 0)
        die(path);
    if (status.st_size == 0) {
        map_slots(SLOTS_FIRST);
        table->magic = MAGIC;
        return;
    }
    size_t bytes = (size_t)status.st_size;
    uint64_t slots = bytes > sizeof *table ? (bytes - sizeof *table) / sizeof(struct slot) : 0;
    uint64_t magic = 0;
    if (pread(fd, &magic, sizeof magic, 0) != sizeof magic || magic != MAGIC || slots == 0
        || (slots & (slots - 1)) != 0) {
        fprintf(stderr, "%s: not a table\n", path);
        exit(1);
    }
    map_slots(slots);
}

static uint64_t hash(const char *key)
{
    uint64_t h = 0xcbf29ce484222325; /* FNV-1a */
    for (; *key != 0; key++)
        h = (h ^ (unsigned char)*key) * 0x100000001b3;
    return h ^ h >> 32;
}

/* The slot that holds `key`, or the empty one where it belongs. */
static struct slot *find(const char *key)
{
    uint64_t at = hash(key) & (table->slots - 1);
    while (table->slot[at].key[0] != 0 && strcmp(table->slot[at].key, key) != 0)
        at = (at + 1) & (table->slots - 1);
    return &table->slot[at];
}

/*
 * Doubles the table. Each entry's new home is its old one or that plus the old count. Taken out and put
 * back in probe order, from an empty slot on, an entry meets only entries that have moved already.
 */
static void grow(void)
{
    uint64_t before = table->slots, empty = 0;
    while (table->slot[empty].key[0] != 0)
        empty++;
    map_slots(2 * before);
    for (uint64_t i = 1; i < before; i++) {
        struct slot *from = &table->slot[(empty + i) & (before - 1)];
        if (from->key[0] == 0)
            continue;
        struct slot moving = *from;
        memset(from, 0, sizeof *from);
        *find(moving.key) = moving;
    }
}

static void put(const char *key, const char *value)
{
    if (4 * (table->used + 1) > 3 * table->slots)
        grow();
    struct slot *slot = find(key);
    table->used += slot->key[0] == 0;
    snprintf(slot->key, sizeof slot->key, "%s", key);
    snprintf(slot->value, sizeof slot->value, "%s", value);
}

static void stress(unsigned long keys)
{
    char key[KEY_BYTES], value[VALUE_BYTES];
    unsigned long missing = 0, wrong = 0;
    for (unsigned long i = 0; i < keys; i++) {
        snprintf(key, sizeof key, "key %lu", i);
        snprintf(value, sizeof value, "value %lu", i * i);
        put(key, value);
    }
    printf("put %lu keys: %ju in the table, %ju slots\n", keys, (uintmax_t)table->used,
           (uintmax_t)table->slots);
    for (unsigned long i = 0; i < keys; i++) {
        snprintf(key, sizeof key, "key %lu", i);
        snprintf(value, sizeof value, "value %lu", i * i);
        const struct slot *slot = find(key);
        missing += slot->key[0] == 0;
        wrong += slot->key[0] != 0 && strcmp(slot->value, value) != 0;
    }
    printf("got %lu keys: %lu missing, %lu wrong\n", keys, missing, wrong);
}

int main(int argc, char **argv)
{
    const char *path = "/netmem/table";
    if (argc > 2 && strcmp(argv[1], "-f") == 0) {
        path = argv[2];
        argc -= 2;
        argv += 2;
    }
    int status = 0;
    if (argc == 4 && strcmp(argv[1], "put") == 0 && argv[2][0] != 0 && strlen(argv[2]) < KEY_BYTES
        && strlen(argv[3]) < VALUE_BYTES) {
        open_table(path);
        put(argv[2], argv[3]);
        printf("%s = %s\n", argv[2], find(argv[2])->value);
    } else if (argc == 3 && strcmp(argv[1], "get") == 0 && argv[2][0] != 0) {
        open_table(path);
        const struct slot *slot = find(argv[2]);
        status = slot->key[0] == 0;
        puts(status == 0 ? slot->value : "no such key");
    } else if (argc == 3 && strcmp(argv[1], "stress") == 0) {
        open_table(path);
        stress(strtoul(argv[2], NULL, 10));
    } else {
        fprintf(stderr, "usage: hashtable [-f FILE] put KEY VALUE | get KEY | stress COUNT\n"
                        "KEY has 1 to %d bytes, VALUE at most %d\n", KEY_BYTES - 1, VALUE_BYTES - 1);
        return 2;
    }
    if (msync(table, mapped_bytes, MS_SYNC) != 0)
        die("msync");
    munmap(table, mapped_bytes);
    if (close(fd) != 0)
        die("close");
    return status;
}
