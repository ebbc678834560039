/* Rarer system calls whose buffers lie in mapped pages: prctl, names of threads, memory of processes, queues, sets of signals, clocks. */
#include "buffers.h"
#include <linux/capability.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <time.h>

int capget(cap_user_header_t, cap_user_data_t);

static struct area area;
static int state;

static void *room(size_t length)
{
    return place(&area, state, length);
}

/* A struct that a call reads, in pages that are then synced. */
static void *given(const void *value, size_t length)
{
    void *at = memcpy(room(length), value, length);
    need(msync(area.map, area.pages * PAGE, MS_SYNC) == 0, "msync");
    return at;
}

static void names(void)
{
    char *name = given("a name", 7), *told = room(16);
    check(prctl(PR_SET_NAME, name) == 0 && prctl(PR_GET_NAME, told) == 0 && strcmp(told, "a name") == 0, "PR_SET_NAME, PR_GET_NAME");
    name = given("other", 6);
    told = room(16);
    check(pthread_setname_np(pthread_self(), name) == 0 && pthread_getname_np(pthread_self(), told, 16) == 0 && strcmp(told, "other") == 0,
          "pthread_setname_np, pthread_getname_np");
    int *number = room(sizeof *number);
    check(prctl(PR_GET_CHILD_SUBREAPER, number) == 0 && *number == 0, "PR_GET_CHILD_SUBREAPER");
    number = room(sizeof *number);
    check(prctl(PR_GET_PDEATHSIG, number) == 0 && *number == 0, "PR_GET_PDEATHSIG");
    check(syscall(SYS_prctl, PR_GET_NAME, told = room(16), 0, 0, 0) == 0 && strcmp(told, "other") == 0, "prctl by number");
}

static void memory_of_processes(void)
{
    enum { LENGTH = 3 * PAGE };
    char local[LENGTH], *here = room(LENGTH), *there = room(LENGTH);
    struct iovec one = {local, LENGTH}, other = {there, LENGTH}, *vector = given(&(struct iovec){here, LENGTH}, sizeof one);
    check(process_vm_readv(getpid(), &one, 1, &other, 1, 0) == LENGTH && memcmp(local, there, LENGTH) == 0, "process_vm_readv out of a mapping");
    memset(local, 'v', LENGTH);
    other.iov_base = local;
    check(process_vm_readv(getpid(), vector, 1, &other, 1, 0) == LENGTH && all(here, LENGTH, 'v'), "into one");
    there = room(LENGTH), here = room(LENGTH);
    other.iov_base = there;
    check(process_vm_writev(getpid(), &one, 1, &other, 1, 0) == LENGTH && all(there, LENGTH, 'v'), "process_vm_writev into a mapping");
    vector = given(&(struct iovec){here, LENGTH}, sizeof one);
    other.iov_base = local;
    check(process_vm_writev(getpid(), vector, 1, &other, 1, 0) == LENGTH && memcmp(local, here, LENGTH) == 0, "out of one");
    vector = given(&(struct iovec){(void *)8, 8}, sizeof one);
    check(process_vm_readv(getpid(), &one, 1, vector, 1, 0) == -1 && errno == EFAULT, "what is nowhere");
}

static void on_signal(int signal)
{
    (void)signal;
}

static void signals(void)
{
    sigset_t set, old, *at = room(sizeof set), *out = room(sizeof set);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    *at = set;
    check(sigprocmask(SIG_BLOCK, at, out) == 0 && !sigismember(out, SIGUSR1) && sigprocmask(SIG_BLOCK, NULL, &old) == 0 && sigismember(&old, SIGUSR1),
          "sigprocmask");
    out = room(sizeof set);
    check(pthread_sigmask(SIG_BLOCK, at, out) == 0 && sigismember(out, SIGUSR1), "pthread_sigmask");
    struct sigaction action = {.sa_handler = on_signal}, *now = given(&action, sizeof action), *before = room(sizeof action);
    check(sigaction(SIGUSR1, now, before) == 0 && before->sa_handler == SIG_DFL, "sigaction");
    before = room(sizeof action);
    check(sigaction(SIGUSR1, NULL, before) == 0 && before->sa_handler == on_signal, "and back");
    need(raise(SIGUSR1) == 0, "raise");
    at = given(&old, sizeof old);
    sigdelset(at, SIGUSR1);
    check(sigsuspend(at) == -1 && errno == EINTR, "sigsuspend");
    need(raise(SIGUSR1) == 0, "raise");
    siginfo_t *info = room(sizeof *info);
    struct timespec *limit = given(&(struct timespec){10, 0}, sizeof *limit);
    at = given(&set, sizeof set);
    check(sigtimedwait(at, info, limit) == SIGUSR1 && info->si_signo == SIGUSR1, "sigtimedwait");
    need(raise(SIGUSR1) == 0, "raise");
    int *number = room(sizeof *number);
    check(sigwait(at, number) == 0 && *number == SIGUSR1, "sigwait");
    signal(SIGUSR1, SIG_DFL);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void clocks(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_NONE}, *how = given(&event, sizeof event);
    timer_t *timer = room(sizeof *timer);
    check(timer_create(CLOCK_MONOTONIC, how, timer) == 0, "timer_create");
    struct itimerspec spec = {{0, 0}, {1000, 0}}, *when = given(&spec, sizeof spec), *old = room(sizeof spec);
    check(timer_settime(*timer, 0, when, old) == 0 && old->it_value.tv_sec == 0, "timer_settime");
    when = room(sizeof spec);
    check(timer_gettime(*timer, when) == 0 && when->it_value.tv_sec >= 990, "timer_gettime");
    timer_delete(*timer);
    struct itimerval interval = {{0, 0}, {1000, 0}}, *next = given(&interval, sizeof interval), *was = room(sizeof interval);
    check(setitimer(ITIMER_REAL, next, was) == 0 && was->it_value.tv_sec == 0, "setitimer");
    was = room(sizeof interval);
    next = given(&(struct itimerval){0}, sizeof interval);
    check(setitimer(ITIMER_REAL, next, was) == 0 && was->it_value.tv_sec >= 990, "and back");
    struct timeval *now = room(sizeof *now);
    check(gettimeofday(now, NULL) == 0 && now->tv_sec > 1000000000, "gettimeofday");
    time_t *seconds = room(sizeof *seconds);
    check(time(seconds) == *seconds && *seconds > 1000000000, "time");
    struct timex *clock = given(&(struct timex){0}, sizeof *clock);
    check(adjtimex(clock) >= 0 && clock->tick > 0, "adjtimex");
    clock = given(&(struct timex){0}, sizeof *clock);
    check(clock_adjtime(CLOCK_REALTIME, clock) >= 0 && clock->tick > 0, "clock_adjtime");
    clock = room(sizeof *clock);
    check(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, clock) == 0 && syscall(SYS_getcpu, room(4), room(4), NULL) == 0, "by number");
}

static void queues(void)
{
    char name[64];
    snprintf(name, sizeof name, "/netmem-test-%d", (int)getpid());
    struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 100};
    char *path = given(name, strlen(name) + 1);
    mqd_t queue = mq_open(path, O_RDWR | O_CREAT, 0600, (struct mq_attr *)given(&attributes, sizeof attributes));
    check(queue >= 0 && mq_send(queue, given("a message", 9), 9, 3) == 0, "mq_open, mq_send");
    char *message = room(100);
    unsigned *priority = room(sizeof *priority);
    check(mq_receive(queue, message, 100, priority) == 9 && memcmp(message, "a message", 9) == 0 && *priority == 3, "mq_receive");
    path = given(name, strlen(name) + 1);
    check(mq_unlink(path) == 0 && mq_close(queue) == 0, "mq_unlink");
    int shared = shmget(IPC_PRIVATE, PAGE, 0600);
    struct shmid_ds *segment = room(sizeof *segment);
    check(shmctl(shared, IPC_STAT, segment) == 0 && segment->shm_segsz == PAGE, "shmctl");
    shmctl(shared, IPC_RMID, NULL);
    int number = msgget(IPC_PRIVATE, 0600);
    struct msqid_ds *messages = room(sizeof *messages);
    check(msgctl(number, IPC_STAT, messages) == 0 && messages->msg_qnum == 0, "msgctl");
    msgctl(number, IPC_RMID, NULL);
}

static void processes(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0}, *version = given(&header, sizeof header);
    struct __user_cap_data_struct local[2], *sets = room(sizeof local);
    need(capget(&header, local) == 0, "capget");
    check(capget(version, sets) == 0 && memcmp(sets, local, sizeof local) == 0, "capget");
    gid_t groups[100], *shown = room(sizeof groups);
    int count = getgroups(100, groups);
    check(getgroups(100, shown) == count && memcmp(shown, groups, count * sizeof *groups) == 0, "getgroups");
    cpu_set_t set, *some = room(sizeof set);
    check(sched_getaffinity(0, sizeof set, some) == 0 && sched_setaffinity(0, sizeof set, some) == 0, "sched_setaffinity");
    int queue = epoll_create1(0);
    struct epoll_event *events = room(4 * sizeof *events);
    struct timespec *limit = given(&(struct timespec){0, 0}, sizeof *limit);
    check(epoll_pwait2(queue, events, 4, limit, given(&(sigset_t){0}, sizeof(sigset_t))) == 0, "epoll_pwait2");
    close(queue);
}

int main(int argc, char **argv)
{
    enum { PAGES = 900 };
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "buffers_of_requests");
    if (command.write)
        close(make_pages(path, PAGES));
    if (!command.check)
        return 0;
    area = area_of(path, PAGES);
    for (state = UNTOUCHED; state < STATES; state++) {
        names();
        memory_of_processes();
        signals();
        clocks();
        queues();
        processes();
    }
    return unlink(path) != 0;
}
