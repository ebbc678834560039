/*
 * What a program sees: every touch of a mapped file timed. Plain POSIX; run it under netmem, and on a local
 * file as the baseline.
 *
 *     fault_bench FILE SIZE MODE [--cpu N] [--repeat N] [--csv FILE]
 *
 * SIZE is bytes, or with a suffix K, M or G. Modes:
 *   fill    makes FILE: every page its own random bytes, msync
 *   rand    MADV_RANDOM, each page touched once in a random order: nanoseconds a touch
 *   seq     each page touched once in order: MB/s
 *   warm    touches all pages, then --repeat (10) random rounds over them: nanoseconds an access
 *   msync   changes a word of each page and times msync(MS_SYNC), --repeat (5) times
 *   msync1  the same for every fourth page
 * rand, seq and warm check each page's first word against what fill wrote: wrong=0 or exit 1.
 */
#include "floor.h"
#include <sys/stat.h>

static char *base;
static uint64_t pages, wrong;
static uint64_t *ns;

static volatile uint64_t *word_of(uint64_t page)
{
    return (volatile uint64_t *)(void *)(base + page * PAGE_BYTES);
}

static uint64_t parse_size(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 0);
    uint64_t unit = *end == 'K' ? 1u << 10 : *end == 'M' ? 1u << 20 : *end == 'G' ? 1u << 30 : 1;
    if (end == text || (*end != 0 && (unit == 1 || end[1] != 0)) || value * unit < PAGE_BYTES) {
        fprintf(stderr, "not a size of at least a page: %s\n", text);
        exit(2);
    }
    return value * unit / PAGE_BYTES * PAGE_BYTES;
}

static void fill(void)
{
    uint64_t begin = now_ns();
    for (uint64_t i = 0; i < pages; i++)
        fill_page(base + i * PAGE_BYTES, i);
    uint64_t filled = now_ns();
    if (msync(base, pages * PAGE_BYTES, MS_SYNC) != 0)
        die("msync");
    printf("fill_ns=%ju\nmsync_ns=%ju\n", (uintmax_t)(filled - begin), (uintmax_t)(now_ns() - filled));
}

static void touch_all(const uint64_t *order)
{
    uint64_t begin = now_ns();
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t page = order != NULL ? order[i] : i;
        uint64_t start = now_ns(), value = *word_of(page);
        ns[i] = now_ns() - start;
        wrong += value != stamp(page);
    }
    uint64_t total = now_ns() - begin;
    printf("total_ns=%ju\n", (uintmax_t)total);
    printf("mb_per_s=%.0f\n", (double)pages * PAGE_BYTES * 1e3 / (double)total);
}

static void warm(uint64_t repeat)
{
    uint64_t *order = permutation(pages), sum = 0, best = UINT64_MAX, all = 0;
    for (uint64_t i = 0; i < pages; i++)
        wrong += *word_of(i) != stamp(i);
    for (uint64_t round = 0; round < repeat; round++) {
        uint64_t begin = now_ns();
        for (uint64_t i = 0; i < pages; i++)
            sum += *word_of(order[i]);
        uint64_t took = now_ns() - begin;
        best = took < best ? took : best;
        all += took;
    }
    printf("accesses=%ju\nchecksum=%jx\n", (uintmax_t)(repeat * pages), (uintmax_t)sum);
    printf("access_mean_ns=%.2f\naccess_best_ns=%.2f\n", (double)all / (double)(repeat * pages),
           (double)best / (double)pages);
}

static void sync_dirty(uint64_t every, uint64_t repeat)
{
    uint64_t dirty = (pages + every - 1) / every, *took = malloc(repeat * sizeof *took), first = 0;
    if (took == NULL)
        die("malloc");
    for (uint64_t i = 0; i < pages; i++) /* all resident and clean before the first round */
        first += *word_of(i);
    if (msync(base, pages * PAGE_BYTES, MS_SYNC) != 0)
        die("msync");
    for (uint64_t round = 0; round < repeat; round++) {
        uint64_t begin = now_ns();
        for (uint64_t i = 0; i < pages; i += every)
            word_of(i)[1] = first + begin + i; /* not the first word, which is checked */
        first += now_ns() - begin;
        begin = now_ns();
        if (msync(base, pages * PAGE_BYTES, MS_SYNC) != 0)
            die("msync");
        took[round] = now_ns() - begin;
    }
    printf("dirty_pages=%ju\nrounds=%ju\n", (uintmax_t)dirty, (uintmax_t)repeat);
    print_latency("msync", took, repeat);
    printf("msync_mb_per_s=%.0f\n", (double)dirty * PAGE_BYTES * 1e3 / (double)took[repeat / 2]);
    free(took);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: fault_bench FILE SIZE fill|rand|seq|warm|msync|msync1 [--cpu N] [--repeat N]"
                        " [--csv FILE]\n");
        return 2;
    }
    const char *mode = argv[3], *csv = option(argc, argv, "--csv", NULL);
    uint64_t bytes = parse_size(argv[2]);
    struct stat status;
    pages = bytes / PAGE_BYTES;
    pin(argc, argv);
    int fd = open(argv[1], O_RDWR | (strcmp(mode, "fill") == 0 ? O_CREAT : 0), 0600);
    if (fd < 0 || fstat(fd, &status) != 0)
        die(argv[1]);
    if (strcmp(mode, "fill") == 0 && ftruncate(fd, (off_t)bytes) != 0)
        die("ftruncate");
    if (strcmp(mode, "fill") != 0 && (uint64_t)status.st_size < bytes) {
        fprintf(stderr, "%s is shorter than %s: fill it first\n", argv[1], argv[2]);
        return 2;
    }
    uint64_t begin = now_ns();
    base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint64_t mapped = now_ns();
    ns = malloc(pages * sizeof *ns);
    if (base == MAP_FAILED || ns == NULL)
        die("mmap");
    memset(ns, 0, pages * sizeof *ns); /* its own faults are not in the figures */
    printf("mode=%s\npages=%ju\nmmap_ns=%ju\n", mode, (uintmax_t)pages, (uintmax_t)(mapped - begin));

    int timed = strcmp(mode, "rand") == 0 || strcmp(mode, "seq") == 0;
    if (strcmp(mode, "fill") == 0) {
        fill();
    } else if (strcmp(mode, "rand") == 0) {
        if (madvise(base, bytes, MADV_RANDOM) != 0)
            die("madvise");
        touch_all(permutation(pages));
    } else if (strcmp(mode, "seq") == 0) {
        touch_all(NULL);
    } else if (strcmp(mode, "warm") == 0) {
        warm(number(argc, argv, "--repeat", 10));
    } else if (strcmp(mode, "msync") == 0 || strcmp(mode, "msync1") == 0) {
        sync_dirty(mode[5] == '1' ? 4 : 1, number(argc, argv, "--repeat", 5));
    } else {
        fprintf(stderr, "no such mode: %s\n", mode);
        return 2;
    }
    if (timed && csv != NULL) {
        FILE *file = fopen(csv, "w");
        if (file == NULL)
            die(csv);
        for (uint64_t i = 0; i < pages; i++)
            fprintf(file, "%ju\n", (uintmax_t)ns[i]);
        fclose(file);
    }
    if (timed)
        print_latency("touch", ns, pages);
    printf("wrong=%ju\n", (uintmax_t)wrong);
    return wrong != 0;
}
