/*
 * Anonymous memory that is used in different orders: what far memory costs. Prints key=value.
 *
 *     memory MIB MODE [TOUCHES [BITS]]
 *
 *     fit       fills it, sums it ten times, and changes it at random: total_ms
 *     scan      fills it, then sums it twice: scan_mb_per_s, of the second time
 *     read      fills it, then loads from TOUCHES pages at random: touches_per_s
 *     write     the same, storing: touches_per_s
 *
 * Of the 64 bits of each word BITS are random, all unless told. Every value is checked.
 */
#include "floor.h"

#define WORDS (PAGE_BYTES / 8)

static uint64_t now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
}

/* At the top of each word. */
static unsigned zeros;

static uint64_t mix(uint64_t i)
{
    return (i * 0x9e3779b97f4a7c15 + 1) >> zeros;
}

static void sum(const uint64_t *words, uint64_t count)
{
    uint64_t found = 0, wanted = 0;
    for (uint64_t i = 0; i < count; i++) {
        found += words[i];
        wanted += mix(i);
    }
    if (found != wanted)
        die("a wrong sum");
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    uint64_t count = strtoull(argv[1], NULL, 10) << 17, pages = count / WORDS;
    uint64_t touches = argc > 3 ? strtoull(argv[3], NULL, 10) : 10000, random = 88172645463325252;
    if (argc > 4)
        zeros = 64 - (unsigned)strtoul(argv[4], NULL, 10);
    if (zeros > 63)
        return 2;
    uint64_t began = now(), *words = malloc(count * 8);
    if (words == NULL || pages == 0)
        die("malloc");
    for (uint64_t i = 0; i < count; i++)
        words[i] = mix(i);
    if (strcmp(argv[2], "fit") == 0) {
        for (int i = 0; i < 10; i++)
            sum(words, count);
    } else if (strcmp(argv[2], "scan") == 0) {
        sum(words, count);
        uint64_t second = now();
        sum(words, count);
        printf("scan_mb_per_s=%.1f\n", (double)count * 8e3 / (double)(now() - second));
        return 0;
    }
    int stores = strcmp(argv[2], "read") != 0;
    uint64_t first = now();
    for (uint64_t i = 0; i < touches; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        uint64_t page = random % pages, *word = words + page * WORDS;
        if (word[1] != mix(page * WORDS + 1))
            die("a wrong word");
        if (stores)
            word[0]++;
    }
    printf("touches_per_s=%.0f\n", (double)touches * 1e9 / (double)(now() - first));
    printf("total_ms=%.3f\n", (double)(now() - began) / 1e6);
    return 0;
}
