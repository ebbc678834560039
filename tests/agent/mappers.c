/*
 * mappers: many threads map parts of one file in every way, load and store in them, protect, move and unmap them.
 *
 *     mappers FILE THREADS PAGES ROUNDS SECONDS
 *
 * Makes FILE if THREADS is 0. Each page's first word is its number; thread T owns byte 64 + T of every page, and counts in
 * it. A thread ends after ROUNDS rounds, and not before SECONDS. In the end every byte must be what its thread counted.
 * Prints "mappers: N wrong", and exits 0 if N is 0.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, THREADS_MAX = 256, PAGES_MAX = 1024, BOTH = PROT_READ | PROT_WRITE };

static size_t pages;
static unsigned long rounds, seconds;
static int fd;
static atomic_ulong wrong;
static unsigned char counted[THREADS_MAX][PAGES_MAX];

static uint64_t stamp(size_t page)
{
    return (page + 1) * 0x9e3779b97f4a7c15u;
}

static void must(int holds, const char *what)
{
    if (!holds && wrong++ < 10)
        fprintf(stderr, "mappers: %s: %s\n", what, strerrorname_np(errno));
}

static unsigned pick(uint64_t *state, unsigned below)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*state >> 33) % below;
}

/* Loads and stores in pages `first` to `first + count` of the file, mapped at `at`. */
static void use(unsigned own, uint64_t *state, unsigned char *at, size_t first, size_t count, int private)
{
    for (int i = 0; i < 4; i++) {
        size_t page = pick(state, (unsigned)count);
        volatile unsigned char *byte = at + page * PAGE + 64 + own;
        must(*(volatile uint64_t *)(at + page * PAGE) == stamp(first + page), "a page shows another's bytes");
        unsigned char before = *byte;
        *byte = (unsigned char)(before + 1);
        must(*byte == (unsigned char)(before + 1), "a store is gone");
        if (!private)
            must(before == counted[own][first + page]++, "a store of this thread is gone");
    }
}

static void one_round(unsigned own, uint64_t *state, unsigned char *arena)
{
    size_t first = pick(state, (unsigned)pages - 8), count = 3 + pick(state, 6), length = count * PAGE;
    int private = pick(state, 4) == 0, fixed = pick(state, 3) == 0;
    int flags = (private ? MAP_PRIVATE : MAP_SHARED) | (fixed ? MAP_FIXED : 0);
    unsigned char *at = mmap(fixed ? arena : NULL, length, BOTH, flags, fd, (off_t)(first * PAGE));
    must(at != MAP_FAILED, "mmap");
    if (at == MAP_FAILED)
        return;
    use(own, state, at, first, count, private);
    switch (pick(state, 5)) {
    case 0:
        must(mprotect(at + PAGE, PAGE, PROT_NONE) == 0 && mprotect(at + PAGE, PAGE, BOTH) == 0, "mprotect");
        break;
    case 1:
        must(private || madvise(at, length, MADV_DONTNEED) == 0, "madvise");
        break;
    case 2:
        if (!fixed)
            at = mremap(at, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, arena);
        must(at != MAP_FAILED, "mremap");
        fixed = 1;
        break;
    case 3:
        must(private || msync(at, length, MS_SYNC) == 0, "msync");
        break;
    }
    use(own, state, at, first, count, private);
    if (fixed) {
        int none = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
        must(mmap(at, length, PROT_NONE, none, -1, 0) == at, "mmap over it");
        return;
    }
    must(munmap(at + PAGE, PAGE) == 0, "munmap of the middle");
    use(own, state, at, first, 1, private);
    use(own, state, at + 2 * PAGE, first + 2, count - 2, private);
    must(munmap(at, length) == 0, "munmap");
}

static void *work(void *argument)
{
    unsigned own = (unsigned)(uintptr_t)argument;
    uint64_t state = own * 2654435761u + 1;
    unsigned char *arena = mmap(NULL, 16 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    time_t end = time(NULL) + (time_t)seconds;
    for (unsigned long round = 0; round < rounds || time(NULL) < end; round++)
        one_round(own, &state, arena);
    return NULL;
}

/* Kibibytes of anonymous memory: what a leak would show in. */
static long anonymous(void)
{
    char line[200];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        sscanf(line, "RssAnon: %ld", &kib);
    fclose(file);
    return kib;
}

int main(int argc, char **argv)
{
    static unsigned char page[PAGE];
    pthread_t thread[THREADS_MAX];
    if (argc != 6)
        return 2;
    unsigned long threads = strtoul(argv[2], NULL, 10);
    pages = strtoul(argv[3], NULL, 10), rounds = strtoul(argv[4], NULL, 10), seconds = strtoul(argv[5], NULL, 10);
    fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    if (fd < 0 || threads > THREADS_MAX || pages > PAGES_MAX || pages < 16)
        return 2;
    for (size_t i = 0; threads == 0 && i < pages; i++) {
        memcpy(page, &(uint64_t){stamp(i)}, 8);
        must(write(fd, page, PAGE) == PAGE, "write");
    }
    for (unsigned long i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)i) != 0)
            return 2;
    for (unsigned long i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    for (size_t i = 0; i < pages; i++) {
        must(pread(fd, page, PAGE, (off_t)(i * PAGE)) == PAGE, "pread");
        for (unsigned long own = 0; own < threads; own++)
            must(page[64 + own] == counted[own][i], "a byte is not what its thread counted");
    }
    must(anonymous() < 200 * 1024, "memory is not given back");
    printf("mappers: %lu wrong\n", (unsigned long)wrong);
    return wrong != 0;
}
