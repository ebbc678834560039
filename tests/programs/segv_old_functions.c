/* SIGSEGV by the functions of BSD and System V: handlers, masks and waiting are what they are by sigaction, and pages come in. */
#include "program.h"
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* the old functions are what is tried */
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>

sighandler_t bsd_signal(int, sighandler_t);
int __xpg_sigpause(int);  /* X/Open's: a signal, to be left out of what is blocked */
int bsd_sigpause(int) __asm__("sigpause"); /* BSD's: a mask */

#define MASK(signal) ((int)(1u << ((signal) - 1)))

static char *map; /* 128 pages, which come in one by one */
static volatile size_t next_page;
static volatile sig_atomic_t came, blocked_inside, right, other;

static int fresh(void)
{
    size_t page = next_page++;
    need(page < 128, "a page that was not touched");
    map[page * PAGE + 9] = 'x';
    return map[page * PAGE + 7] == (char)('A' + page % 26);
}

static void on_segv(int signal)
{
    came += signal == SIGSEGV;
    blocked_inside = is_blocked(SIGSEGV);
    right = fresh();
}

static void on_other(int signal)
{
    other = signal;
    blocked_inside = is_blocked(SIGSEGV);
    right = fresh();
}

static struct sigaction now(void)
{
    struct sigaction action;
    need(sigaction(SIGSEGV, NULL, &action) == 0, "sigaction");
    return action;
}

static int sent(void)
{
    came = right = blocked_inside = 0;
    raise(SIGSEGV);
    return came == 1 && right;
}

static void handlers(void)
{
    check(bsd_signal(SIGSEGV, on_segv) == SIG_DFL && now().sa_handler == on_segv && (now().sa_flags & SA_RESTART), "bsd_signal restarts");
    check(sent() && blocked_inside && sent() && !is_blocked(SIGSEGV), "its handler stays, and is not interrupted by its own");
    check(bsd_signal(SIGSEGV, SIG_ERR) == SIG_ERR && errno == EINVAL && now().sa_handler == on_segv, "SIG_ERR is no handler");
    check(sigset(SIGSEGV, on_segv) == on_segv && !(now().sa_flags & SA_RESTART) && sent() && blocked_inside, "sigset");
    check(sigset(SIGSEGV, SIG_HOLD) == on_segv && is_blocked(SIGSEGV) && fresh(), "sigset with SIG_HOLD blocks");
    came = 0;
    check(raise(SIGSEGV) == 0 && came == 0 && sigset(SIGSEGV, on_segv) == SIG_HOLD && came == 1 && !is_blocked(SIGSEGV), "and a handler lets in");
    check(sighold(SIGSEGV) == 0 && is_blocked(SIGSEGV) && raise(SIGSEGV) == 0 && came == 1 && sigrelse(SIGSEGV) == 0 && came == 2, "sighold, sigrelse");
    check(sigignore(SIGSEGV) == 0 && now().sa_handler == SIG_IGN && raise(SIGSEGV) == 0 && fresh(), "sigignore");
    check(sigset(SIGSEGV, on_segv) == SIG_IGN && sent(), "and back");
    check(sighold(99) == -1 && errno == EINVAL && sigignore(99) == -1 && errno == EINVAL, "no such signal");
}

static void masks(void)
{
    int segv = MASK(SIGSEGV), usr = MASK(SIGUSR2);
    check(sigblock(segv) == 0 && is_blocked(SIGSEGV) && fresh(), "sigblock");
    check(sigblock(usr) == segv && sigblock(0) == (segv | usr), "adds, and tells what was");
    check(sigsetmask(usr) == (segv | usr) && !is_blocked(SIGSEGV) && is_blocked(SIGUSR2), "sigsetmask sets");
    came = 0;
    check(sigsetmask(segv) == usr && raise(SIGSEGV) == 0 && came == 0 && sigsetmask(0) == segv && came == 1, "what is sent waits for it");
    check(sigsetmask(-1) == 0 && is_blocked(SIGSEGV) && fresh() && (sigsetmask(0) & segv), "everything, and nothing");
}

/* A child that sends as soon as the parent waits: the signal is blocked until then. */
static pid_t send_soon(int signal)
{
    pid_t me = getpid(), child = fork();
    if (child == 0)
        _exit(kill(me, signal) != 0);
    other = right = blocked_inside = came = 0;
    return child;
}

static void pausing(void)
{
    signal(SIGUSR1, on_other);
    sigsetmask(MASK(SIGUSR1));
    pid_t child = send_soon(SIGUSR1);
    check(bsd_sigpause(MASK(SIGSEGV)) == -1 && errno == EINTR && other == SIGUSR1 && blocked_inside && right && !is_blocked(SIGSEGV),
          "BSD's sigpause waits with a mask");
    need(wait_for(child) == 0, "kill");
    sigsetmask(MASK(SIGUSR1) | MASK(SIGSEGV));
    child = send_soon(SIGUSR1);
    check(__xpg_sigpause(SIGUSR1) == -1 && errno == EINTR && other == SIGUSR1 && blocked_inside && right && is_blocked(SIGSEGV),
          "X/Open's leaves one signal out");
    need(wait_for(child) == 0, "kill");
    child = send_soon(SIGSEGV);
    check(__xpg_sigpause(SIGSEGV) == -1 && errno == EINTR && came == 1 && right && is_blocked(SIGSEGV), "SIGSEGV itself too");
    need(wait_for(child) == 0, "kill");
    sigsetmask(MASK(SIGUSR1));
    int queue = epoll_create1(0);
    struct epoll_event event;
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGUSR1);
    child = send_soon(SIGUSR1);
    struct timespec limit = {100, 0};
    check(epoll_pwait2(queue, &event, 1, &limit, &all) == -1 && errno == EINTR && other == SIGUSR1 && blocked_inside && right &&
              !is_blocked(SIGSEGV),
          "epoll_pwait2");
    need(wait_for(child) == 0, "kill");
    close(queue);
    sigsetmask(0);
}

static void descriptors(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    sigaddset(&set, SIGUSR2);
    need(sigprocmask(SIG_BLOCK, &set, NULL) == 0, "sigprocmask");
    int fd = signalfd(-1, &set, SFD_NONBLOCK);
    struct signalfd_siginfo info;
    check(fd >= 0 && read(fd, &info, sizeof info) == -1 && errno == EAGAIN && fresh(), "signalfd with SIGSEGV in its set");
    raise(SIGUSR2);
    check(read(fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR2, "tells of the others");
    close(fd);
    need(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0, "sigprocmask");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "segv_old_functions");
    if (command.write)
        close(make_pages(path, 128));
    if (!command.check)
        return 0;
    int fd = open_or_fail(path, O_RDWR);
    map = map_or_fail(fd, 128 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    check(fresh(), "a page");
    handlers();
    masks();
    pausing();
    descriptors();
    return unlink(path) != 0;
}
