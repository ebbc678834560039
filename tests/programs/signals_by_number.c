/* Signals by syscall(2): actions, masks and waiting with masks are what they are by libc's functions, SIGSEGV's too. */
#include "program.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>

/* What the kernel takes. */
typedef uint64_t set_t;
struct kernel_action {
    void (*handler)(int, siginfo_t *, void *);
    unsigned long flags;
    void (*restorer)(void);
    set_t mask;
};
#define BIT(signal) ((set_t)1 << ((signal) - 1))
static const set_t segv = BIT(SIGSEGV);

static char *map; /* 128 pages, which come in one by one */
static volatile size_t next_page;
static volatile sig_atomic_t came, right, seen_inside;

static int fresh(void)
{
    size_t page = next_page++;
    need(page < 128, "a page that was not touched");
    map[page * PAGE + 9] = 'x';
    return map[page * PAGE + 7] == (char)('A' + page % 26);
}

/* Words for sets and structures, in a page that nobody touched. */
static void *place(void)
{
    return map + next_page++ * PAGE + 64;
}

static set_t blocked(void)
{
    set_t now = 0;
    need(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &now, 8) == 0, "rt_sigprocmask");
    return now;
}

static void change(int how, set_t set)
{
    need(syscall(SYS_rt_sigprocmask, how, &set, NULL, 8) == 0, "rt_sigprocmask");
}

static void on_segv(int signal, siginfo_t *info, void *context)
{
    (void)context;
    came += signal == SIGSEGV && info->si_signo == SIGSEGV;
}

static void on_other(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    seen_inside = (blocked() & segv) != 0;
    right = fresh();
}

static struct kernel_action get(int signal)
{
    struct kernel_action now;
    need(syscall(SYS_rt_sigaction, signal, NULL, &now, 8) == 0, "rt_sigaction");
    return now;
}

static void masks(void)
{
    sigset_t shown;
    set_t *set = place(), *old = place();
    *set = segv;
    *old = BIT(SIGUSR2);
    check(syscall(SYS_rt_sigprocmask, SIG_BLOCK, set, old, 8) == 0 && *old == 0 && blocked() == segv && fresh(),
          "rt_sigprocmask blocks SIGSEGV, and a page comes in");
    check(sigprocmask(SIG_BLOCK, NULL, &shown) == 0 && sigismember(&shown, SIGSEGV), "sigprocmask tells the same");
    came = 0;
    set_t *waits = place();
    check(raise(SIGSEGV) == 0 && came == 0 && syscall(SYS_rt_sigpending, waits, 8) == 0 && *waits == segv && fresh(),
          "what is sent waits, and rt_sigpending tells");
    siginfo_t *info = place();
    struct timespec *limit = place();
    *limit = (struct timespec){10, 0};
    check(syscall(SYS_rt_sigtimedwait, set, info, limit, 8) == SIGSEGV && info->si_signo == SIGSEGV && info->si_code == SI_TKILL &&
              info->si_pid == getpid(),
          "rt_sigtimedwait takes it");
    *limit = (struct timespec){0, 0};
    check(syscall(SYS_rt_sigtimedwait, set, NULL, limit, 8) == -1 && errno == EAGAIN && came == 0, "once");
    raise(SIGSEGV);
    change(SIG_SETMASK, 0);
    check(came == 1 && blocked() == 0 && fresh(), "and unblocked, it comes");
    change(SIG_SETMASK, ~(set_t)0);
    check((blocked() & segv) && fresh(), "everything is blocked, and a page comes in");
    change(SIG_SETMASK, 0);
}

static void actions(void)
{
    struct kernel_action *action = place(), was = get(SIGSEGV);
    check((void *)was.handler == (void *)on_segv && (was.flags & SA_SIGINFO) && was.mask == BIT(SIGUSR2), "rt_sigaction tells what sigaction set");
    *action = was;
    action->mask = segv | BIT(SIGHUP);
    check(syscall(SYS_rt_sigaction, SIGSEGV, action, NULL, 8) == 0 && get(SIGSEGV).mask == (segv | BIT(SIGHUP)), "and sets it");
    came = 0;
    raise(SIGSEGV);
    check(came == 1 && fresh(), "it is called, and a page comes in");
    struct kernel_action *before = place();
    was = get(SIGUSR1);
    *action = was;
    action->mask = segv;
    check(syscall(SYS_rt_sigaction, SIGUSR1, action, before, 8) == 0 && before->mask == was.mask && get(SIGUSR1).mask == segv,
          "of another signal with SIGSEGV in its mask");
    right = seen_inside = 0;
    raise(SIGUSR1);
    check(right && seen_inside && !(blocked() & segv), "whose handler has it blocked, and finds its page");
    struct sigaction told;
    check(sigaction(SIGUSR1, NULL, &told) == 0 && sigismember(&told.sa_mask, SIGSEGV), "sigaction tells the same");
}

static pid_t child;

static void send_soon(void)
{
    pid_t me = getpid();
    right = seen_inside = 0;
    child = fork();
    if (child == 0)
        _exit(kill(me, SIGUSR1) != 0);
}

/* Interrupted, with SIGSEGV blocked inside the handler, which found its page. */
static void interrupted(long result, const char *what)
{
    int error = errno;
    need(wait_for(child) == 0, "kill");
    check(result == -1 && error == EINTR && right && seen_inside && !(blocked() & segv), what);
}

static void waiting_with_masks(void)
{
    change(SIG_BLOCK, BIT(SIGUSR1));
    set_t *mask = place();
    *mask = ~BIT(SIGUSR1);
    send_soon();
    interrupted(syscall(SYS_rt_sigsuspend, mask, 8), "rt_sigsuspend with all but one blocked");
    struct timespec *limit = place();
    *limit = (struct timespec){100, 0};
    send_soon();
    interrupted(syscall(SYS_ppoll, NULL, 0, limit, mask, 8), "ppoll");
    check(limit->tv_sec < 100, "which tells the time that is left");
    struct {
        set_t *set;
        size_t bytes;
    } *pair = place();
    *pair = (typeof(*pair)){mask, 8};
    send_soon();
    interrupted(syscall(SYS_pselect6, 0, NULL, NULL, NULL, NULL, pair), "pselect6");
    int queue = epoll_create1(0);
    struct epoll_event *events = place();
    send_soon();
    interrupted(syscall(SYS_epoll_pwait, queue, events, 1, -1, mask, (size_t)8), "epoll_pwait");
    send_soon();
    interrupted(syscall(SYS_epoll_pwait2, queue, events, 1, NULL, mask, (size_t)8), "epoll_pwait2");
    int ends[2];
    need(pipe(ends) == 0 && write(ends[1], "x", 1) == 1, "pipe");
    struct pollfd *entry = place();
    *entry = (struct pollfd){ends[0], POLLIN, 0};
    check(syscall(SYS_ppoll, entry, 1, limit, mask, 8) == 1 && entry->revents == POLLIN, "ppoll of a pipe");
    fd_set *reads = place();
    FD_ZERO(reads);
    FD_SET(ends[0], reads);
    check(syscall(SYS_pselect6, ends[0] + 1, reads, NULL, NULL, limit, pair) == 1 && FD_ISSET(ends[0], reads), "pselect6 of a pipe");
    close(ends[0]), close(ends[1]), close(queue);
    change(SIG_SETMASK, 0);
}

static void refused(void)
{
    set_t set = segv;
    check(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, 4) == -1 && errno == EINVAL, "a set of another size");
    check(syscall(SYS_rt_sigprocmask, 99, &set, NULL, 8) == -1 && errno == EINVAL, "another way to change it");
    check(syscall(SYS_rt_sigprocmask, SIG_BLOCK, (void *)8, NULL, 8) == -1 && errno == EFAULT, "a set that is nowhere");
    check(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, (void *)8, 8) == -1 && errno == EFAULT, "nor its place");
    check(syscall(SYS_rt_sigaction, SIGKILL, &(struct kernel_action){0}, NULL, 8) == -1 && errno == EINVAL, "an action for SIGKILL");
    check(syscall(SYS_rt_sigaction, SIGSEGV, (void *)8, NULL, 8) == -1 && errno == EFAULT, "an action that is nowhere");
    check(syscall(SYS_rt_sigsuspend, (void *)8, 8) == -1 && errno == EFAULT, "rt_sigsuspend");
    check(blocked() == 0 && fresh(), "and nothing is blocked");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "signals_by_number");
    if (command.write)
        close(make_pages(path, 128));
    if (!command.check)
        return 0;
    struct sigaction action = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
    sigaddset(&action.sa_mask, SIGUSR2);
    need(sigaction(SIGSEGV, &action, NULL) == 0, "sigaction");
    action.sa_sigaction = on_other;
    need(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
    int fd = open_or_fail(path, O_RDWR);
    map = map_or_fail(fd, 128 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    masks();
    actions();
    waiting_with_masks();
    refused();
    return unlink(path) != 0;
}
