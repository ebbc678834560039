/*
 * What a mapping costs in memory of the process beside its pages, and how long a huge sparse one takes. Plain POSIX.
 *
 *     footprint FILE MIB             maps and touches all of a file
 *     footprint FILE MIB --sparse    makes the file so long, maps it and touches one page in each quarter
 *
 * Prints anonymous memory and page tables before and after.
 */
#include "floor.h"

/* The kibibytes on the line of `file` that begins with `name`, in bytes. */
static uint64_t bytes_of(const char *file, const char *name)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *from = fopen(file, "r");
    if (from == NULL)
        die(file);
    while (fgets(line, sizeof line, from) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            sscanf(line + strlen(name), "%llu", &kib);
    fclose(from);
    return (uint64_t)kib << 10;
}

static void say(const char *when)
{
    printf("%s_anonymous_bytes=%ju\n%s_tables_bytes=%ju\n", when,
           (uintmax_t)bytes_of("/proc/self/smaps_rollup", "Anonymous:"), when,
           (uintmax_t)bytes_of("/proc/self/status", "VmPTE:"));
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    uint64_t bytes = strtoull(argv[2], NULL, 10) << 20, sum = 0;
    int sparse = flag(argc, argv, "--sparse");
    pin(argc, argv);
    say("before");
    uint64_t begin = now_ns();
    int fd = open(argv[1], O_RDWR | (sparse ? O_CREAT : 0), 0600);
    if (fd < 0 || bytes == 0 || (sparse && ftruncate(fd, (off_t)bytes) != 0))
        die(argv[1]);
    char *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        die("mmap");
    uint64_t mapped = now_ns();
    for (uint64_t at = 0; at < bytes; at += sparse ? bytes / 4 : PAGE_BYTES)
        sum += *(volatile uint64_t *)(void *)(base + at);
    printf("mapped_ns=%ju\ntouched_ns=%ju\nsum=%jx\n", (uintmax_t)(mapped - begin), (uintmax_t)(now_ns() - mapped),
           (uintmax_t)sum);
    say("after");
    return 0;
}
