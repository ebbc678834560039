/* MAP_NETMEM: anonymous memory, shared or private, that is the kernel's where there is no netmem. */
#include "netmem.h"
#include "program.h"

enum { PAGES = 64 };

static char *map_pages(int flags)
{
    char *at = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_NETMEM | flags, -1, 0);
    check(at != MAP_FAILED, flags == MAP_SHARED ? "mmap, shared" : "mmap, private");
    return at;
}

static int child_of(char *shared, char *private)
{
    if (shared[PAGE] != 's' || private[PAGE] != 'p' || !all(shared + 40 * PAGE, PAGE, 40))
        return 1;
    shared[2 * PAGE] = 'c';
    private[PAGE] = 'c';
    private[2 * PAGE] = 'c';
    return 0;
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    if (!command.write)
        return 0; /* it ends with its last mapping: there is nothing to look at later */
    char *shared = map_pages(MAP_SHARED), *private = map_pages(MAP_PRIVATE);
    check(all(shared, 8 * PAGE, 0) && all(private, 8 * PAGE, 0), "both are zeros");
    for (int i = 0; i < PAGES; i += 2)
        memset(shared + i * PAGE, i, PAGE);
    shared[PAGE] = 's';
    private[PAGE] = 'p';
    pid_t child = fork();
    if (child == 0)
        _exit(child_of(shared, private));
    check(wait_for(child) == 0, "a child sees both");
    check(shared[2 * PAGE] == 'c' && shared[2 * PAGE + 1] == 2, "its shared store is seen here");
    check(private[PAGE] == 'p' && private[2 * PAGE] == 0, "its private ones are not");
    check(all(shared + 62 * PAGE, PAGE, 62) && all(shared + 63 * PAGE, PAGE, 0), "pages keep what they held");
    check(munmap(shared + 8 * PAGE, 8 * PAGE) == 0 && all(shared + 16 * PAGE, PAGE, 16),
          "a part can be unmapped");
    check(madvise(private, PAGES * PAGE, MADV_DONTNEED) == 0 && private[PAGE] == 0,
          "MADV_DONTNEED of private memory is zeros");
    check(msync(shared, 8 * PAGE, MS_SYNC) == 0, "msync works");
    check(munmap(shared, PAGES * PAGE) == 0 && munmap(private, PAGES * PAGE) == 0, "munmap");
    return 0;
}
