/*
 * What a call that is none of netmem's costs: nanoseconds a call. Run with and without LD_PRELOAD.
 *
 *     calls [--count 20000] [--rounds 9] [--cpu N]
 *
 * mmap is a pair mmap + munmap of an anonymous page, open is open + close of /dev/null, the others one call each. The
 * figure is the best round's mean: what the call costs, not what else the machine did.
 */
#include "floor.h"
#include <sys/stat.h>

static int zero_fd, null_fd;
static char buffer[64];
static char *page;

static void map_pair(void)
{
    void *at = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || munmap(at, PAGE_BYTES) != 0)
        die("mmap");
}

static void protect(void)
{
    if (mprotect(page, PAGE_BYTES, PROT_READ | PROT_WRITE) != 0)
        die("mprotect");
}

static void read_zero(void)
{
    if (read(zero_fd, buffer, sizeof buffer) != sizeof buffer)
        die("read");
}

static void write_null(void)
{
    if (write(null_fd, buffer, sizeof buffer) != sizeof buffer)
        die("write");
}

static void open_pair(void)
{
    int fd = open("/dev/null", O_RDONLY);
    if (fd < 0 || close(fd) != 0)
        die("open");
}

static void status(void)
{
    struct stat of;
    if (stat("/dev/null", &of) != 0)
        die("stat");
}

static const struct {
    const char *name;
    void (*call)(void);
} CALLS[] = {
    {"mmap", map_pair}, {"mprotect", protect}, {"read", read_zero},
    {"write", write_null}, {"open", open_pair}, {"stat", status},
};

int main(int argc, char **argv)
{
    uint64_t count = number(argc, argv, "--count", 20000), rounds = number(argc, argv, "--rounds", 9);
    pin(argc, argv);
    zero_fd = open("/dev/zero", O_RDONLY);
    null_fd = open("/dev/null", O_WRONLY);
    page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (count == 0 || rounds == 0 || zero_fd < 0 || null_fd < 0 || page == MAP_FAILED)
        return 2;
    for (size_t which = 0; which < sizeof CALLS / sizeof *CALLS; which++) {
        uint64_t best = UINT64_MAX;
        for (uint64_t round = 0; round < rounds; round++) {
            uint64_t begin = now_ns();
            for (uint64_t i = 0; i < count; i++)
                CALLS[which].call();
            uint64_t took = now_ns() - begin;
            best = took < best ? took : best;
        }
        printf("%s_ns=%.1f\n", CALLS[which].name, (double)best / (double)count);
    }
    return 0;
}
