/*
 * What a program sees: every touch of a mapped file timed. Plain POSIX; run it under netmem, and on a local
 * file as the baseline.
 *
 *     fault_bench FILE SIZE MODE [--cpu N] [--pages N] [--threads N] [--from N] [--repeat N] [--csv FILE]
 *
 * SIZE is bytes, or with a suffix K, M or G. Modes:
 *   fill      makes FILE: every page its own random bytes, msync; --from N and --pages N: these pages alone
 *   rand      MADV_RANDOM, pages touched once in a random order, by --threads (1)
 *   shuffled  the same without the advice
 *   seq, reversed, stride2, stride7     pages touched once in that order
 *   two       two scans by turns, each in order
 *   warm      touches all pages, then --repeat (10) random rounds over them: nanoseconds an access
 *   msync     changes a word of each page and times msync(MS_SYNC), --repeat (5) times
 *   msync1    the same for every fourth page
 *   msyncN    the same for 16 runs of --pages (256) at random places
 * Those that touch each page once touch --pages N of them, else all that their order meets. All but fill and msync check
 * each page's first word against what fill wrote: wrong=0 or exit 1.
 */
#include "touch.h"
#include <sys/stat.h>

static char *base;
static uint64_t pages, wrong;

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

static void fill(uint64_t from, uint64_t count)
{
    uint64_t begin = now_ns();
    if (from >= pages || count > pages - from)
        count = from < pages ? pages - from : 0;
    for (uint64_t i = from; i < from + count; i++)
        fill_page(base + i * PAGE_BYTES, i);
    uint64_t filled = now_ns();
    if (msync(base, pages * PAGE_BYTES, MS_SYNC) != 0)
        die("msync");
    printf("filled=%ju\nfill_ns=%ju\nmsync_ns=%ju\n", (uintmax_t)count, (uintmax_t)(filled - begin),
           (uintmax_t)(now_ns() - filled));
}

/* The pages in the order of a mode, and how many; NULL if it is none that touches pages once. */
static uint64_t *in_order(const char *mode, uint64_t *count)
{
    uint64_t stride = strncmp(mode, "stride", 6) == 0 ? strtoull(mode + 6, NULL, 10) : 1;
    uint64_t most = stride > 0 ? (pages + stride - 1) / stride : 0, limit = *count;
    *count = most < limit ? most : limit;
    if (strcmp(mode, "rand") == 0 || strcmp(mode, "shuffled") == 0)
        return permutation(pages);
    int two = strcmp(mode, "two") == 0, reversed = strcmp(mode, "reversed") == 0;
    if (*count == 0 || (stride == 1 && !two && !reversed && strcmp(mode, "seq") != 0))
        return NULL;
    uint64_t *order = malloc(*count * sizeof *order);
    if (order == NULL)
        die("malloc");
    for (uint64_t i = 0; i < *count; i++)
        order[i] = two ? i / 2 + i % 2 * (pages / 2) : reversed ? *count - 1 - i : i * stride;
    return order;
}

static void touch_once(int argc, char **argv, const char *mode, const uint64_t *order, uint64_t count)
{
    struct touching all = {.base = base, .order = order, .count = count, .ns = malloc(count * sizeof *all.ns),
                           .threads = number(argc, argv, "--threads", 1)};
    if (all.ns == NULL)
        die("malloc");
    if (strcmp(mode, "rand") == 0 && madvise(base, pages * PAGE_BYTES, MADV_RANDOM) != 0)
        die("madvise");
    wrong += touch_all(&all);
    write_csv(argc, argv, all.ns, count);
    print_latency("touch", all.ns, count);
    free(all.ns);
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

/* Pages that a commit is to carry: each `every`th, or if that is 0, 16 runs of `run` at random places. */
static uint64_t *to_change(uint64_t every, uint64_t run, uint64_t *count)
{
    uint64_t chunks = run > 0 ? pages / run : 0, runs = chunks < 16 ? chunks : 16;
    *count = every > 0 ? (pages + every - 1) / every : runs * run;
    uint64_t *change = malloc(*count * sizeof *change), *places = permutation(chunks);
    if (change == NULL || *count == 0)
        die("no page to change");
    qsort(places, runs, sizeof *places, by_value);
    for (uint64_t i = 0; i < *count; i++)
        change[i] = every > 0 ? i * every : places[i / run] * run + i % run;
    free(places);
    return change;
}

static void sync_dirty(uint64_t every, uint64_t run, uint64_t repeat)
{
    uint64_t dirty, *change = to_change(every, run, &dirty), *took = malloc(repeat * sizeof *took), first = 0;
    if (took == NULL)
        die("malloc");
    for (uint64_t i = 0; i < (every > 0 ? pages : dirty); i++) /* resident and clean before the first round */
        first += *word_of(every > 0 ? i : change[i]);
    if (msync(base, pages * PAGE_BYTES, MS_SYNC) != 0)
        die("msync");
    for (uint64_t round = 0; round < repeat; round++) {
        uint64_t begin = now_ns();
        for (uint64_t i = 0; i < dirty; i++)
            word_of(change[i])[1] = first + begin + i; /* not the first word, which is checked */
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
    free(change);
}

/* The mode is one of those that touch pages once, or 0 comes back. */
static int once(int argc, char **argv, const char *mode)
{
    uint64_t count = number(argc, argv, "--pages", pages);
    count = count < pages ? count : pages;
    uint64_t *order = in_order(mode, &count);
    if (order == NULL)
        return 0;
    touch_once(argc, argv, mode, order, count);
    free(order);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: fault_bench FILE SIZE MODE [OPTIONS]; the modes are at the top of its source\n");
        return 2;
    }
    const char *mode = argv[3];
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
    if (base == MAP_FAILED)
        die("mmap");
    printf("mode=%s\npages=%ju\nmmap_ns=%ju\n", mode, (uintmax_t)pages, (uintmax_t)(mapped - begin));

    uint64_t run = number(argc, argv, "--pages", 256);
    if (strcmp(mode, "fill") == 0) {
        fill(number(argc, argv, "--from", 0), number(argc, argv, "--pages", pages));
    } else if (strcmp(mode, "warm") == 0) {
        warm(number(argc, argv, "--repeat", 10));
    } else if (strcmp(mode, "msync") == 0 || strcmp(mode, "msync1") == 0 || strcmp(mode, "msyncN") == 0) {
        sync_dirty(mode[5] == 0 ? 1 : mode[5] == '1' ? 4 : 0, run, number(argc, argv, "--repeat", 5));
    } else if (!once(argc, argv, mode)) {
        fprintf(stderr, "no such mode: %s\n", mode);
        return 2;
    }
    printf("wrong=%ju\n", (uintmax_t)wrong);
    return wrong != 0;
}
