/* A program that blocks SIGSEGV, by whatever way: it sees it blocked, what is sent waits, and pages come in all the same. */
#include "program.h"
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* the old functions are what is tried */
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>

static char *map; /* 128 pages, which come in one by one */
static volatile size_t next_page;
static volatile sig_atomic_t came, right, seen_inside;
static volatile int last_code, last_value;

static int fresh(void)
{
    size_t page = next_page++;
    need(page < 128, "a page that was not touched");
    map[page * PAGE + 9] = 'x';
    return map[page * PAGE + 7] == (char)('A' + page % 26);
}

static int is_pending(void)
{
    sigset_t now;
    need(sigpending(&now) == 0, "sigpending");
    return sigismember(&now, SIGSEGV);
}

static void on_segv(int signal, siginfo_t *info, void *context)
{
    (void)context;
    came++;
    last_code = signal == info->si_signo ? info->si_code : -99;
    last_value = info->si_value.sival_int;
}

static void on_other(int signal)
{
    (void)signal;
    seen_inside = is_blocked(SIGSEGV);
    right = fresh();
}

static sigset_t only(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    return set;
}

static sigset_t everything(void)
{
    sigset_t set;
    sigfillset(&set);
    return set;
}

static void block(int how, int signal)
{
    sigset_t set = only(signal);
    need(sigprocmask(how, &set, NULL) == 0, "sigprocmask");
}

static void sending(void)
{
    block(SIG_BLOCK, SIGSEGV);
    check(is_blocked(SIGSEGV) && fresh(), "SIGSEGV is blocked, and a page comes in");
    came = 0;
    check(raise(SIGSEGV) == 0 && came == 0 && is_pending(), "raise: it waits, and sigpending tells");
    check(fresh() && is_pending(), "a page comes in, and it still waits");
    block(SIG_UNBLOCK, SIGSEGV);
    check(came == 1 && last_code == SI_TKILL && !is_pending(), "unblocked, it comes, once");
    block(SIG_BLOCK, SIGSEGV);
    union sigval value = {.sival_int = 4711};
    check(sigqueue(getpid(), SIGSEGV, value) == 0 && raise(SIGSEGV) == 0 && kill(getpid(), SIGSEGV) == 0 && is_pending(),
          "sent in several ways, it waits");
    block(SIG_UNBLOCK, SIGSEGV);
    check(came >= 2 && !is_pending() && !is_blocked(SIGSEGV) && fresh(), "and comes");

    sigset_t set = only(SIGSEGV);
    block(SIG_BLOCK, SIGSEGV);
    struct timespec now = {0, 0};
    came = 0;
    check(sigtimedwait(&set, NULL, &now) == -1 && errno == EAGAIN, "sigtimedwait: nothing came");
    check(sigqueue(getpid(), SIGSEGV, value) == 0, "sigqueue");
    siginfo_t info;
    check(sigwaitinfo(&set, &info) == SIGSEGV && info.si_signo == SIGSEGV && info.si_code == SI_QUEUE &&
              info.si_value.sival_int == 4711 && info.si_pid == getpid(),
          "sigwaitinfo takes it, with its value");
    int number = 0;
    check(raise(SIGSEGV) == 0 && sigwait(&set, &number) == 0 && number == SIGSEGV, "sigwait takes it");
    block(SIG_UNBLOCK, SIGSEGV);
    check(came == 0, "and no handler ran");
    check(sighold(SIGSEGV) == 0 && is_blocked(SIGSEGV) && sigrelse(SIGSEGV) == 0 && !is_blocked(SIGSEGV), "sighold and sigrelse");
}

static void *thread_body(void *expect)
{
    return (void *)(intptr_t)(is_blocked(SIGSEGV) == (int)(intptr_t)expect && fresh());
}

static int in_thread(pthread_attr_t *attributes, int expect)
{
    pthread_t thread;
    void *result = NULL;
    need(pthread_create(&thread, attributes, thread_body, (void *)(intptr_t)expect) == 0, "pthread_create");
    need(pthread_join(thread, &result) == 0, "pthread_join");
    return result != NULL;
}

static void threads(void)
{
    sigset_t all = everything(), before;
    need(pthread_sigmask(SIG_SETMASK, &all, &before) == 0, "pthread_sigmask");
    check(is_blocked(SIGSEGV) && is_blocked(SIGTERM) && fresh(), "everything is blocked, and a page comes in");
    check(in_thread(NULL, 1), "a thread made then has SIGSEGV blocked, and finds its page");
    need(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0, "pthread_sigmask");
    check(!is_blocked(SIGSEGV) && in_thread(NULL, 0), "one made later has not");
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    sigset_t set = only(SIGSEGV), told;
    need(pthread_attr_setsigmask_np(&attributes, &set) == 0, "pthread_attr_setsigmask_np");
    check(pthread_attr_getsigmask_np(&attributes, &told) == 0 && sigismember(&told, SIGSEGV) && in_thread(&attributes, 1),
          "one whose attributes say so has it blocked");
    pthread_attr_destroy(&attributes);
}

static pid_t send_soon(int signal)
{
    pid_t me = getpid(), child = fork();
    if (child == 0)
        _exit(kill(me, signal) != 0);
    return child;
}

static void waiting_with_masks(void)
{
    struct sigaction action = {.sa_handler = on_other};
    sigfillset(&action.sa_mask);
    need(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
    struct sigaction told;
    need(sigaction(SIGUSR1, NULL, &told) == 0, "sigaction");
    check(sigismember(&told.sa_mask, SIGSEGV), "an action's mask is told as it was set");
    raise(SIGUSR1);
    check(right && seen_inside && !is_blocked(SIGSEGV), "a handler that blocks everything finds its page");

    sigemptyset(&action.sa_mask);
    need(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
    block(SIG_BLOCK, SIGUSR1);
    sigset_t mask = everything();
    sigdelset(&mask, SIGUSR1);
    pid_t child = send_soon(SIGUSR1);
    right = 0;
    check(sigsuspend(&mask) == -1 && errno == EINTR && right && seen_inside, "sigsuspend with all but one blocked");
    need(wait_for(child) == 0, "kill");
    child = send_soon(SIGUSR1);
    right = 0;
    check(ppoll(NULL, 0, NULL, &mask) == -1 && errno == EINTR && right && seen_inside, "ppoll");
    need(wait_for(child) == 0, "kill");
    child = send_soon(SIGUSR1);
    right = 0;
    check(pselect(0, NULL, NULL, NULL, NULL, &mask) == -1 && errno == EINTR && right && seen_inside, "pselect");
    need(wait_for(child) == 0, "kill");
    int epoll = epoll_create1(0);
    struct epoll_event event;
    child = send_soon(SIGUSR1);
    right = 0;
    check(epoll_pwait(epoll, &event, 1, -1, &mask) == -1 && errno == EINTR && right && seen_inside, "epoll_pwait");
    need(wait_for(child) == 0, "kill");
    close(epoll);
    block(SIG_UNBLOCK, SIGUSR1);
    check(!is_blocked(SIGSEGV), "and afterwards nothing is blocked");
}

static ucontext_t here, there;
static char stack[65536];
static volatile int in_context;

static void other_context(void)
{
    in_context = is_blocked(SIGSEGV) && fresh();
}

static void contexts_and_jumps(void)
{
    need(getcontext(&there) == 0, "getcontext");
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = sizeof stack;
    there.uc_link = &here;
    there.uc_sigmask = everything();
    makecontext(&there, other_context, 0);
    check(swapcontext(&here, &there) == 0 && in_context && !is_blocked(SIGSEGV) && fresh(), "swapcontext to one with all blocked");

    sigjmp_buf buffer;
    block(SIG_BLOCK, SIGSEGV);
    volatile int turn = 0;
    if (sigsetjmp(buffer, 1) == 0) {
        block(SIG_UNBLOCK, SIGSEGV);
        turn = 1;
        siglongjmp(buffer, 1);
    }
    check(turn == 1 && is_blocked(SIGSEGV) && fresh(), "siglongjmp back to where it was blocked");
    block(SIG_UNBLOCK, SIGSEGV);
    if (sigsetjmp(buffer, 1) == 0) {
        block(SIG_BLOCK, SIGSEGV);
        came = 0;
        raise(SIGSEGV);
        siglongjmp(buffer, 1);
    }
    check(came == 1 && !is_blocked(SIGSEGV) && fresh(), "and back to where it was not, which lets in what waited");
}

static void genuine_while_blocked(void)
{
    pid_t child = fork();
    if (child == 0) {
        block(SIG_BLOCK, SIGSEGV);
        if (!fresh())
            _exit(1);
        *(volatile char *)(map + 200 * PAGE) = 1;
        _exit(2);
    }
    check(wait_for(child) == -SIGSEGV, "a fault while SIGSEGV is blocked ends the process, whatever its handler");
}

static void executed(const char *self)
{
    pid_t child = fork();
    if (child == 0) {
        block(SIG_BLOCK, SIGSEGV);
        signal(SIGBUS, SIG_IGN);
        execl(self, self, "blocked?", (char *)NULL);
        _exit(99);
    }
    check(wait_for(child) == 3, "a program that is executed inherits the mask");
    child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_IGN);
        execl(self, self, "blocked?", (char *)NULL);
        _exit(99);
    }
    check(wait_for(child) == 4, "and what is ignored");
    char command[PATH_MAX + 16];
    snprintf(command, sizeof command, "exec '%s' blocked?", self);
    block(SIG_BLOCK, SIGSEGV);
    int status = system(command);
    block(SIG_UNBLOCK, SIGSEGV);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 1, "and of one behind system");
    signal(SIGSEGV, SIG_IGN);
    status = system(command);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 4, "which inherits what is ignored, too");
    status = pclose(popen(command, "r"));
    check(WIFEXITED(status) && WEXITSTATUS(status) == 4, "and so does one behind popen");
}

/* 1: blocked; 2: another signal is blocked that nobody asked for, 4: ignored. */
static int what_i_inherited(void)
{
    struct sigaction segv, bus;
    sigset_t now;
    sigaction(SIGSEGV, NULL, &segv);
    sigaction(SIGBUS, NULL, &bus);
    sigprocmask(SIG_BLOCK, NULL, &now);
    int more = 0;
    for (int i = 1; i <= SIGRTMAX; i++)
        more |= i != SIGSEGV && sigismember(&now, i) == 1;
    return sigismember(&now, SIGSEGV) + 2 * (bus.sa_handler == SIG_IGN) + 4 * (segv.sa_handler == SIG_IGN) + 8 * more;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "blocked?") == 0)
        return what_i_inherited();
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "segv_masks");
    if (command.write)
        close(make_pages(path, 128));
    if (!command.check)
        return 0;

    struct sigaction action = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
    need(sigaction(SIGSEGV, &action, NULL) == 0, "sigaction");
    int fd = open_or_fail(path, O_RDWR);
    block(SIG_BLOCK, SIGSEGV); /* before anything of the file is mapped */
    map = map_or_fail(fd, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    need(munmap(map + 200 * PAGE, 100 * PAGE) == 0, "munmap");
    check(is_blocked(SIGSEGV) && fresh(), "SIGSEGV was blocked before the file was mapped");
    block(SIG_UNBLOCK, SIGSEGV);
    sending();
    threads();
    waiting_with_masks();
    contexts_and_jumps();
    genuine_while_blocked();
    char self[PATH_MAX] = "";
    need(readlink("/proc/self/exe", self, sizeof self - 1) > 0, "readlink");
    executed(self);
    return unlink(path) != 0;
}
