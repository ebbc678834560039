/*
 * What the floor programs share: pinning, time, sockets, quantiles, userfaultfd. They are the smallest C
 * programs that do a job; benchmarks put their figures beside netmem's. All print key=value lines.
 *
 *     cc -O2 -Wall -Wextra -pthread -D_GNU_SOURCE -o floor_rtt floor_rtt.c
 */
#ifndef FLOOR_H
#define FLOOR_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096, REQUEST_PAGES_MAX = 64 };

/* One request for pages; the answer is count × 4096 bytes and nothing else. */
struct request {
    uint64_t page;
    uint32_t count;
    uint32_t pad;
};

static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The value that follows `name` on the command line, or `otherwise`. */
static inline const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return otherwise;
}

static inline int flag(int argc, char **argv, const char *name)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return 1;
    return 0;
}

static inline uint64_t number(int argc, char **argv, const char *name, uint64_t otherwise)
{
    const char *text = option(argc, argv, name, NULL);
    char *end;
    if (text == NULL)
        return otherwise;
    errno = 0;
    uint64_t value = strtoull(text, &end, 0);
    if (errno != 0 || *end != 0 || end == text) {
        fprintf(stderr, "%s: not a number: %s\n", name, text);
        exit(2);
    }
    return value;
}

/* --cpu N pins the process, threads made later included; without it the scheduler decides. */
static inline void pin(int argc, char **argv)
{
    const char *cpu = option(argc, argv, "--cpu", NULL);
    if (cpu != NULL) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((int)number(argc, argv, "--cpu", 0), &set);
        if (sched_setaffinity(0, sizeof set, &set) != 0)
            die("sched_setaffinity");
    }
    printf("cpu=%s\n", cpu != NULL ? cpu : "any");
}

static inline void send_all(int fd, const void *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        ssize_t n = send(fd, (const char *)bytes + done, count - done, MSG_NOSIGNAL);
        if (n <= 0 && errno != EINTR)
            die("send");
        done += n > 0 ? (size_t)n : 0;
    }
}

/* 0 when all came, -1 when the peer closed before the first byte. */
static inline int recv_all(int fd, void *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        ssize_t n = recv(fd, (char *)bytes + done, count - done, 0);
        if (n == 0 && done == 0)
            return -1;
        if (n == 0 || (n < 0 && errno != EINTR))
            die("recv");
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static inline void no_delay(int fd)
{
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        die("TCP_NODELAY");
}

static inline int dial(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_port = htons((uint16_t)number(argc, argv, "--port", 0));
    if (inet_pton(AF_INET, option(argc, argv, "--host", "127.0.0.1"), &address.sin_addr) != 1) {
        fprintf(stderr, "--host takes an IPv4 address\n");
        exit(2);
    }
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("connect");
    no_delay(fd);
    return fd;
}

/* A listening socket on 127.0.0.1, or any address with --any; prints its port as the ready line. */
static inline int listen_and_say(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_port = htons((uint16_t)number(argc, argv, "--port", 0));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (flag(argc, argv, "--any"))
        address.sin_addr.s_addr = htonl(INADDR_ANY);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0
        || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 16) != 0
        || getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        die("listen");
    printf("port=%u\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static inline int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Prints NAME_p50_ns, NAME_p99_ns and NAME_mean_ns. Sorts. */
static inline void print_latency(const char *name, uint64_t *ns, size_t count)
{
    uint64_t sum = 0;
    qsort(ns, count, sizeof *ns, by_value);
    for (size_t i = 0; i < count; i++)
        sum += ns[i];
    printf("%s_p50_ns=%ju\n", name, (uintmax_t)ns[count / 2]);
    printf("%s_p99_ns=%ju\n", name, (uintmax_t)ns[count - 1 - count / 100]);
    printf("%s_mean_ns=%ju\n", name, (uintmax_t)(sum / count));
}

static inline uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* 0 .. count - 1 in a random order, the same for the same count. */
static inline uint64_t *permutation(size_t count)
{
    uint64_t *order = malloc(count * sizeof *order), state = 7117;
    if (order == NULL)
        die("malloc");
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    for (size_t i = count; i > 1; i--) {
        size_t j = next_random(&state) % i;
        uint64_t held = order[i - 1];
        order[i - 1] = order[j];
        order[j] = held;
    }
    return order;
}

/* The first word of page `page` in everything that these programs serve or write. */
static inline uint64_t stamp(uint64_t page)
{
    return (page + 1) * 0x9e3779b97f4a7c15u;
}

static inline void fill_page(void *at, uint64_t page)
{
    uint64_t *word = at, state = page;
    for (size_t i = 1; i < PAGE_BYTES / 8; i++)
        word[i] = next_random(&state);
    word[0] = stamp(page);
}

/* Writes values, one a line, to the file that --csv names. Before print_latency, which sorts them. */
static inline void write_csv(int argc, char **argv, const uint64_t *ns, size_t count)
{
    const char *name = option(argc, argv, "--csv", NULL);
    FILE *file = name != NULL ? fopen(name, "w") : NULL;
    if (name == NULL)
        return;
    if (file == NULL)
        die(name);
    for (size_t i = 0; i < count; i++)
        fprintf(file, "%ju\n", (uintmax_t)ns[i]);
    if (fclose(file) != 0)
        die(name);
}

/* A memfd mapping of `length` bytes whose missing pages are events of the descriptor in *uffd, or SIGBUS with that feature. */
static inline char *map_missing_with(size_t length, int *uffd, uint64_t features)
{
    int fd = memfd_create("floor", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)length) != 0)
        die("memfd_create");
    char *base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        die("mmap");
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    *uffd = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC) : -1;
    if (*uffd < 0)
        *uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    if (*uffd < 0)
        *uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM | features};
    struct uffdio_register range = {.range = {(uintptr_t)base, length}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (*uffd < 0 || ioctl(*uffd, UFFDIO_API, &api) != 0 || ioctl(*uffd, UFFDIO_REGISTER, &range) != 0)
        die("userfaultfd");
    return base;
}

static inline char *map_missing(size_t length, int *uffd)
{
    return map_missing_with(length, uffd, 0);
}

static inline void install(int uffd, char *at, const void *from, size_t length)
{
    struct uffdio_copy copy = {.dst = (uintptr_t)at, .src = (uintptr_t)from, .len = length};
    if (ioctl(uffd, UFFDIO_COPY, &copy) != 0)
        die("UFFDIO_COPY");
}

#endif
