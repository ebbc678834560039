/*
 * touches FILE: from the trace of valgrind's lackey (--trace-mem=yes) on standard input, which pages of a mapped FILE a program touched, in
 * order, one of several in a row: a line for each, the page's number in decimal. tests/tools/record-touches.sh calls it.
 *
 * Where the file is mapped is asked of /proc/PID/maps while the trace comes, so that the very first touches of a mapping may be missed.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANGES_MAX = 256, LINES_BETWEEN_LOOKS = 20000 };

static struct range {
    uint64_t start, end, offset;
} ranges[RANGES_MAX];
static int count;

static void look(long pid, const char *file)
{
    char path[64], line[4500], name[4200];
    snprintf(path, sizeof path, "/proc/%ld/maps", pid);
    FILE *maps = fopen(path, "r");
    if (maps == NULL)
        return;
    while (fgets(line, sizeof line, maps) != NULL) {
        struct range one;
        if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %4199s", &one.start, &one.end, &one.offset, name) != 4)
            continue;
        if (strcmp(name, file) != 0 || count == RANGES_MAX)
            continue;
        int known = 0;
        for (int i = 0; i < count; i++)
            known |= memcmp(&ranges[i], &one, sizeof one) == 0;
        if (!known)
            ranges[count++] = one;
    }
    fclose(maps);
}

int main(int argc, char **argv)
{
    char line[512];
    long pid = 0, lines = 0;
    uint64_t last = UINT64_MAX;
    if (argc != 2)
        return 2;
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (pid == 0)
            sscanf(line, "==%ld==", &pid);
        if (pid != 0 && lines++ % LINES_BETWEEN_LOOKS == 0)
            look(pid, argv[1]);
        if (line[0] != ' ')
            continue;
        uint64_t address = strtoull(line + 3, NULL, 16);
        for (int i = 0; i < count; i++) {
            if (address < ranges[i].start || address >= ranges[i].end)
                continue;
            uint64_t page = (address - ranges[i].start + ranges[i].offset) >> 12;
            if (page != last)
                printf("%lu\n", (last = page));
            break;
        }
    }
    return 0;
}
