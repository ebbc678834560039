/* Structs that system calls fill or read, in mapped pages: the results are those that local memory gets. */
#include "buffers.h"
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>

static struct area area;
static int state;

/* The call into a place of the mapping gives what it gives to local memory. */
#define SAME(type, call)                                                                                                     \
    do {                                                                                                                     \
        type local_struct, *at = &local_struct;                                                                              \
        memset(at, 0, sizeof *at);                                                                                           \
        need((call) >= 0, "locally: " #call);                                                                                \
        at = place(&area, state, sizeof(type));                                                                              \
        if (state == SYNCED)                                                                                                 \
            memset(at, 0, sizeof *at), msync(area.map, area.pages * PAGE, MS_SYNC);                                          \
        check((call) >= 0 && memcmp(at, &local_struct, sizeof(type)) == 0, #call);                                            \
    } while (0)

typedef int pair_t[2];

static void files(const char *path, int fd)
{
    SAME(struct stat, stat(path, at));
    SAME(struct stat, fstat(fd, at));
    SAME(struct stat, lstat(path, at));
    SAME(struct stat, fstatat(AT_FDCWD, path, at, 0));
    SAME(struct statx, statx(AT_FDCWD, path, 0, STATX_MODE | STATX_SIZE, at));
    char local[256], *name = place(&area, state, sizeof local);
    ssize_t length = readlink("/proc/self/exe", local, sizeof local);
    check(readlink("/proc/self/exe", name, sizeof local) == length && memcmp(name, local, length) == 0, "readlink");
    name = place(&area, state, sizeof local);
    check(getcwd(name, sizeof local) == name && strcmp(name, getcwd(local, sizeof local)) == 0, "getcwd");
    SAME(int, ioctl(fd, FIONREAD, at) + 1);
    struct timespec *stamps = place(&area, state, 2 * sizeof *stamps);
    stamps[0] = stamps[1] = (struct timespec){1000000000, 0};
    msync(area.map, area.pages * PAGE, MS_SYNC);
    struct stat now;
    check(futimens(fd, stamps) == 0 && utimensat(AT_FDCWD, path, stamps, 0) == 0 && fstat(fd, &now) == 0
              && now.st_mtime == 1000000000, "futimens, utimensat");
    struct flock *lock = place(&area, state, sizeof *lock);
    *lock = (struct flock){.l_type = F_WRLCK, .l_len = 10};
    msync(area.map, area.pages * PAGE, MS_SYNC);
    check(fcntl(fd, F_SETLK, lock) == 0 && fcntl(fd, F_GETLK, lock) == 0 && lock->l_type == F_UNLCK, "fcntl");
    name = strcpy(place(&area, state, strlen(path) + 1), path);
    msync(area.map, area.pages * PAGE, MS_SYNC);
    check(access(name, F_OK) == 0 && access(strcpy(name, "/dev/null"), W_OK) == 0, "paths");
}

static void processes(void)
{
    SAME(struct utsname, uname(at));
    SAME(struct rlimit, getrlimit(RLIMIT_NOFILE, at));
    SAME(struct rlimit, prlimit(0, RLIMIT_CORE, NULL, at));
    SAME(cpu_set_t, sched_getaffinity(0, sizeof *at, at));
    SAME(struct itimerval, getitimer(ITIMER_REAL, at));
    SAME(struct timespec, clock_getres(CLOCK_PROCESS_CPUTIME_ID, at));
    SAME(uid_t, getresuid(at, at, at));
    struct timespec *cpu = place(&area, state, sizeof *cpu);
    check(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, cpu) == 0 && cpu->tv_sec < 1000, "clock_gettime");
    struct rusage *usage = place(&area, state, sizeof *usage);
    check(getrusage(RUSAGE_SELF, usage) == 0 && usage->ru_maxrss > 0, "getrusage");
    struct sysinfo *info = place(&area, state, sizeof *info);
    check(sysinfo(info) == 0 && info->mem_unit > 0, "sysinfo");
    struct tms *time = place(&area, state, sizeof *time);
    check(times(time) != -1 && time->tms_cutime >= 0 && time->tms_cutime < 100000, "times");
    unsigned char *random = place(&area, state, 64);
    check(getrandom(random, 64, 0) == 64 && getentropy(random, 64) == 0, "getrandom, getentropy");
    int *status = place(&area, state, sizeof *status);
    pid_t child = fork();
    if (child == 0)
        _exit(7);
    siginfo_t *ended = place(&area, state, sizeof *ended);
    check(waitid(P_PID, child, ended, WEXITED | WNOWAIT) == 0 && ended->si_status == 7, "waitid");
    usage = place(&area, state, sizeof *usage);
    check(wait4(child, status, 0, usage) == child && WEXITSTATUS(*status) == 7, "wait4");
    struct timespec *nap = place(&area, state, sizeof *nap);
    *nap = (struct timespec){0, 1000};
    msync(area.map, area.pages * PAGE, MS_SYNC);
    check(nanosleep(nap, nap) == 0 && clock_nanosleep(CLOCK_MONOTONIC, 0, nap, NULL) == 0, "nanosleep, clock_nanosleep");
    sigset_t *set = place(&area, state, sizeof *set);
    sigemptyset(set);
    sigaddset(set, SIGUSR1);
    sigprocmask(SIG_BLOCK, set, NULL);
    raise(SIGUSR1);
    msync(area.map, area.pages * PAGE, MS_SYNC);
    siginfo_t *signal = place(&area, state, sizeof *signal);
    sigset_t *waiting = place(&area, state, sizeof *waiting);
    check(sigpending(waiting) == 0 && sigismember(waiting, SIGUSR1) == 1, "sigpending");
    check(sigwaitinfo(set, signal) == SIGUSR1 && signal->si_signo == SIGUSR1, "sigwaitinfo");
}

static void descriptors(void)
{
    int *ends = place(&area, state, sizeof(pair_t)), *pair = place(&area, state, sizeof(pair_t));
    check(pipe(ends) == 0 && ends[0] != ends[1], "pipe");
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && pair[0] != pair[1], "socketpair");
    need(write(ends[1], "x", 1) == 1, "write");
    struct pollfd *entry = place(&area, state, sizeof *entry);
    *entry = (struct pollfd){ends[0], POLLIN, 0};
    msync(area.map, area.pages * PAGE, MS_SYNC);
    check(poll(entry, 1, -1) == 1 && entry->revents == POLLIN, "poll");
    fd_set *set = place(&area, state, sizeof *set);
    FD_ZERO(set);
    FD_SET(ends[0], set);
    FD_SET(pair[0], set);
    struct timeval *limit = place(&area, state, sizeof *limit);
    *limit = (struct timeval){10, 0};
    msync(area.map, area.pages * PAGE, MS_SYNC);
    check(select(64, set, NULL, NULL, limit) == 1 && FD_ISSET(ends[0], set) && !FD_ISSET(pair[0], set), "select");
    int queue = epoll_create1(0);
    struct epoll_event *event = place(&area, state, sizeof *event);
    *event = (struct epoll_event){EPOLLIN, {.u64 = 42}};
    msync(area.map, area.pages * PAGE, MS_SYNC);
    check(epoll_ctl(queue, EPOLL_CTL_ADD, ends[0], event) == 0, "epoll_ctl");
    event = place(&area, state, 2 * sizeof *event);
    check(epoll_wait(queue, event, 2, -1) == 1 && event->data.u64 == 42, "epoll_wait");
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec *when = place(&area, state, sizeof *when);
    *when = (struct itimerspec){{0, 0}, {1000, 0}};
    msync(area.map, area.pages * PAGE, MS_SYNC);
    check(timerfd_settime(timer, 0, when, NULL) == 0, "timerfd_settime");
    when = place(&area, state, sizeof *when);
    check(timerfd_gettime(timer, when) == 0 && when->it_value.tv_sec >= 990, "timerfd_gettime");
    for (int i = 0; i < 2; i++)
        close(ends[i]), close(pair[i]);
    close(queue);
    close(timer);
}

static void sockets(void)
{
    struct sockaddr_un *name = place(&area, state, sizeof *name);
    socklen_t *size = place(&area, state, sizeof *size);
    memset(name, 0, sizeof *name);
    name->sun_family = AF_UNIX;
    snprintf(name->sun_path + 1, 60, "netmem-test-%d-%d", (int)getpid(), state);
    socklen_t length = sizeof *name;
    msync(area.map, area.pages * PAGE, MS_SYNC);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    check(bind(listener, (void *)name, length) == 0 && listen(listener, 1) == 0, "bind");
    check(connect(client, (void *)name, length) == 0, "connect");
    struct sockaddr_un *from = place(&area, state, sizeof *from);
    *size = sizeof *from;
    msync(area.map, area.pages * PAGE, MS_SYNC);
    int one = accept(listener, (void *)from, size);
    check(one >= 0 && *size == sizeof from->sun_family && from->sun_family == AF_UNIX, "accept");
    *size = sizeof *from;
    msync(area.map, area.pages * PAGE, MS_SYNC);
    check(getsockname(listener, (void *)from, size) == 0 && memcmp(from, name, sizeof *name) == 0, "getsockname");
    *size = sizeof *from;
    check(getpeername(client, (void *)from, size) == 0 && memcmp(from, name, sizeof *name) == 0, "getpeername");
    int *value = place(&area, state, sizeof *value);
    *value = 1;
    *size = sizeof *value;
    msync(area.map, area.pages * PAGE, MS_SYNC);
    check(setsockopt(client, SOL_SOCKET, SO_PASSCRED, value, sizeof *value) == 0, "setsockopt");
    check(getsockopt(client, SOL_SOCKET, SO_TYPE, value, size) == 0 && *value == SOCK_STREAM && *size == 4, "getsockopt");
    close(one);
    close(client);
    close(listener);
}

int main(int argc, char **argv)
{
    enum { PAGES = 400 };
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "buffers_of_structs");
    if (command.write)
        close(make_pages(path, PAGES));
    if (!command.check)
        return 0;
    area = area_of(path, PAGES);
    for (state = UNTOUCHED; state < STATES; state++) {
        int fd = open_or_fail("/dev/null", O_RDWR);
        char other[] = "/tmp/netmem-test-XXXXXX";
        int file = mkstemp(other);
        need(file >= 0, "mkstemp");
        files(other, file);
        unlink(other);
        close(file);
        close(fd);
        processes();
        descriptors();
        sockets();
    }
    return unlink(path) != 0;
}
