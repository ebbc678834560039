/* SIGSEGV handlers of the program, in every form: they get what is theirs as the kernel gives it, and pages come in before, in
   and after them. */
#include "program.h"
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* the old functions are what is tried */
#include <ucontext.h>

static char *map; /* 64 pages, which come in one by one */
static size_t next_page;
static char *wall; /* memory that nobody may touch */
static volatile sig_atomic_t came, number, code, blocked_inside, jumped_over, fetched_inside, mask_has_usr1;
static void *volatile address;

/* Whether a page that was not touched before has its letter. */
static int fresh(void)
{
    size_t page = next_page++;
    need(page < 64, "a page that was not touched");
    return map[page * PAGE + 7] == (char)('A' + page % 26);
}

static void note(int signal)
{
    came++;
    number = signal;
    blocked_inside = is_blocked(SIGSEGV);
    mask_has_usr1 = is_blocked(SIGUSR1);
    fetched_inside = fresh();
}

static void let_in(void) { mprotect(wall, PAGE, PROT_READ | PROT_WRITE); }
static void shut(void) { mprotect(wall, PAGE, PROT_NONE); }

static void plain(int signal)
{
    note(signal);
    let_in();
}

static void full(int signal, siginfo_t *info, void *context)
{
    ucontext_t *frame = context;
    note(signal);
    code = info->si_code;
    address = info->si_addr;
    number = info->si_signo == signal ? signal : -1;
    if (sigismember(&frame->uc_sigmask, SIGSEGV))
        number = -2;
    let_in();
}

/* Steps over the store: what a runtime does that turns faults into exceptions. */
static void over(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
#ifdef __x86_64__
    ucontext_t *frame = context;
    if (frame->uc_mcontext.gregs[REG_RAX] == 0x5eed) {
        frame->uc_mcontext.gregs[REG_RIP] += 3; /* movb %al,(%rdi) is 2 bytes, the nop behind it 1 */
        frame->uc_mcontext.gregs[REG_RAX] = 0x600d;
    }
#else
    (void)context;
#endif
    jumped_over = 1;
}

static long store_under_a_handler(char *at)
{
#ifdef __x86_64__
    long value = 0x5eed;
    __asm__ volatile("movb %%al,(%1)\n\tnop" : "+a"(value) : "D"(at) : "memory");
    return value;
#else
    (void)at;
    jumped_over = 1;
    return 0x600d;
#endif
}

static int fault(void)
{
    int before = came;
    shut();
    *(volatile char *)(wall + 100) = 1;
    return came == before + 1 && wall[100] == 1 && fetched_inside && fresh();
}

static void take(int flags, int siginfo, int also)
{
    struct sigaction action = {.sa_flags = flags | (siginfo ? SA_SIGINFO : 0)};
    sigemptyset(&action.sa_mask);
    if (also)
        sigaddset(&action.sa_mask, also);
    if (siginfo)
        action.sa_sigaction = full;
    else
        action.sa_handler = plain;
    need(sigaction(SIGSEGV, &action, NULL) == 0, "sigaction");
}

/* How a child ends in which `action` faults or is sent a signal. */
static int ends_by(void (*action)(void))
{
    pid_t child = fork();
    if (child == 0) {
        action();
        _exit(0);
    }
    return wait_for(child);
}

static void a_fault(void)
{
    shut();
    *(volatile char *)wall = 1;
}

static void default_and_fault(void)
{
    signal(SIGSEGV, SIG_DFL);
    if (!fresh())
        _exit(1);
    a_fault();
}

static void ignore_and_fault(void)
{
    signal(SIGSEGV, SIG_IGN);
    if (!fresh())
        _exit(1);
    a_fault();
}

static void ignore_and_raise(void)
{
    signal(SIGSEGV, SIG_IGN);
    raise(SIGSEGV);
    kill(getpid(), SIGSEGV);
    _exit(fresh() ? 7 : 1);
}

static void default_and_raise(void)
{
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
}

static void once_and_twice(void)
{
    take(SA_RESETHAND, 1, 0);
    if (!fault())
        _exit(1);
    a_fault();
}

static void fault_in_the_handler(int signal)
{
    (void)signal;
    a_fault();
}

static void twice_at_once(void)
{
    signal(SIGSEGV, fault_in_the_handler);
    a_fault();
}

static void no_execution(void)
{
    signal(SIGSEGV, SIG_DFL);
    void (*function)(void) = NULL;
    char *page = map + 60 * PAGE;
    memcpy(&function, &page, sizeof function);
    function();
}

static void forms(void)
{
    take(0, 1, 0);
    check(fault() && number == SIGSEGV && code == SEGV_ACCERR && address == wall + 100,
          "sigaction with SA_SIGINFO: the number, the code and the address are the fault's");
    check(blocked_inside && !mask_has_usr1 && !is_blocked(SIGSEGV), "SIGSEGV is blocked while the handler runs, and not later");
    take(SA_NODEFER, 1, SIGUSR1);
    check(fault() && !blocked_inside && mask_has_usr1 && !is_blocked(SIGUSR1),
          "SA_NODEFER does not block it; the action's mask is blocked");
    take(0, 0, 0);
    check(fault() && number == SIGSEGV, "sigaction without SA_SIGINFO");
    struct sigaction seen;
    need(sigaction(SIGSEGV, NULL, &seen) == 0, "sigaction");
    check(seen.sa_handler == plain && !(seen.sa_flags & (SA_SIGINFO | SA_RESTART | SA_ONSTACK)),
          "sigaction tells the action that was set");
    take(SA_RESETHAND, 1, 0);
    check(fault(), "SA_RESETHAND: the handler runs");
    need(sigaction(SIGSEGV, NULL, &seen) == 0, "sigaction");
    check(seen.sa_handler == SIG_DFL, "and is gone");
    check(signal(SIGSEGV, plain) == SIG_DFL && fault() && blocked_inside, "signal");
    check(signal(SIGSEGV, plain) == plain, "which tells the handler before");
    check(ssignal(SIGSEGV, plain) == plain && fault() && blocked_inside, "ssignal");
    check(sysv_signal(SIGSEGV, plain) == plain && fault() && !blocked_inside, "sysv_signal does not block it");
    check(signal(SIGSEGV, plain) == SIG_DFL, "and was for once");
    check(sigset(SIGSEGV, plain) == plain && fault() && blocked_inside, "sigset");
    check(siginterrupt(SIGSEGV, 1) == 0 && fault(), "siginterrupt");
    need(sigaction(SIGSEGV, NULL, &seen) == 0, "sigaction");
    check(!(seen.sa_flags & SA_RESTART), "takes SA_RESTART away");
    siginterrupt(SIGSEGV, 0);
    check(signal(SIGSEGV, SIG_ERR) == SIG_ERR && errno == EINVAL, "SIG_ERR is no handler");
}

static void sent(void)
{
    take(0, 1, 0);
    came = 0;
    check(raise(SIGSEGV) == 0 && came == 1 && code == SI_TKILL, "raise calls the handler, with its code");
    check(kill(getpid(), SIGSEGV) == 0 && came == 2 && code == SI_USER, "so does kill");
    union sigval value = {.sival_int = 42};
    check(sigqueue(getpid(), SIGSEGV, value) == 0 && came == 3 && code == SI_QUEUE, "so does sigqueue");
    check(fault(), "and a fault afterwards too");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "segv_handlers");
    if (command.write)
        close(make_pages(path, 64));
    if (!command.check)
        return 0;

    wall = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(wall != MAP_FAILED, "mmap");
    signal(SIGSEGV, plain); /* before anything of the file is mapped */
    int fd = open_or_fail(path, O_RDWR);
    map = map_or_fail(fd, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    check(fault(), "a handler that was there before the file was mapped");
    forms();
    sent();

    struct sigaction action = {.sa_sigaction = over, .sa_flags = SA_SIGINFO};
    need(sigaction(SIGSEGV, &action, NULL) == 0, "sigaction");
    shut();
    check(store_under_a_handler(wall) == 0x600d && jumped_over && fresh(), "a handler that changes the registers of its context");

    check(ends_by(default_and_fault) == -SIGSEGV, "a fault with the default action ends the process by SIGSEGV");
    check(ends_by(ignore_and_fault) == -SIGSEGV, "so does one that is ignored");
    check(ends_by(ignore_and_raise) == 7, "a SIGSEGV that was sent is ignored");
    check(ends_by(default_and_raise) == -SIGSEGV, "or ends the process, by default");
    check(ends_by(once_and_twice) == -SIGSEGV, "SA_RESETHAND: the second fault ends it");
    check(ends_by(twice_at_once) == -SIGSEGV, "a fault in the handler, which blocks SIGSEGV, ends it");
    check(ends_by(no_execution) == -SIGSEGV, "so does a call into a page of data");
    return unlink(path) != 0;
}
