/*
 * One thread forks; another replaces mappings of the file by memory of the program's own. Children have that memory: it is not
 * MADV_DONTFORK, whatever its address showed a moment before.
 *
 *     fork_and_reuse FILE
 */
#include "race.h"

enum { RANGES = 1000, FORKS = 120 };

static char *base;
static int fd;
static volatile int stop;

/* Ranges of the program's own memory that its children would not have. */
static int kept_from_children(void)
{
    char line[512], permissions[8], device[16];
    unsigned long start = 0, from, to, offset, inode;
    int kept = 0, own = 0;
    FILE *smaps = fopen("/proc/self/smaps", "r");
    must(smaps != NULL);
    while (fgets(line, sizeof line, smaps)) {
        if (sscanf(line, "%lx-%lx %7s %lx %15s %lu", &from, &to, permissions, &offset, device, &inode) == 6)
            start = from, own = inode == 0;
        else if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " dc") && own)
            kept += start >= (uintptr_t)base && start < (uintptr_t)base + 2L * RANGES * PAGE;
    }
    fclose(smaps);
    return kept;
}

static void *reuse(void *none)
{
    const int both = PROT_READ | PROT_WRITE;
    int *kept = calloc(1, sizeof *kept);
    (void)none;
    while (!stop && *kept == 0) {
        for (long i = 0; i < RANGES; i++) {
            char *range = base + 2 * i * PAGE;
            must(munmap(range, PAGE) == 0);
            must(mmap(range, PAGE, both, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == range);
        }
        *kept += kept_from_children();
        for (long i = 0; i < RANGES; i++) {
            char *range = base + 2 * i * PAGE;
            must(mmap(range, PAGE, both, MAP_SHARED | MAP_FIXED, fd, 0) == range);
        }
    }
    return kept;
}

int main(int argc, char **argv)
{
    pthread_t other;
    int *kept;
    must(argc == 2);
    fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    must(fd >= 0 && ftruncate(fd, PAGE) == 0);
    /* Below what the kernel hands out: nobody else comes by these addresses. */
    base = (char *)0x10000000000;
    for (long i = 0; i < RANGES; i++)
        must(mmap(base + 2 * i * PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED);
    must(pthread_create(&other, NULL, reuse, NULL) == 0);
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        must(child > 0 && waitpid(child, NULL, 0) == child);
    }
    stop = 1;
    must(pthread_join(other, (void **)&kept) == 0);
    printf("%d ranges are kept from children\n", *kept);
    return 0;
}
