/* Alternate stacks: handlers run on them if they asked, find their pages there, and may be left by siglongjmp. */
#include "program.h"
#include <pthread.h>
#include <sys/resource.h>

static char *map; /* 96 pages, which come in one by one */
static volatile size_t next_page;
static char *wall;
static sigjmp_buf away;
static char *low, *high; /* where the alternate stack is */
static volatile sig_atomic_t on_it, right, turns;

static int fresh(void)
{
    size_t page = next_page++;
    need(page < 96, "a page that was not touched");
    map[page * PAGE + 9] = 'x';
    return map[page * PAGE + 7] == (char)('A' + page % 26);
}

static void note(void)
{
    char here;
    char *volatile at = &here;
    on_it = at >= low && at < high;
    right = fresh() && fresh();
}

static void leave(int signal)
{
    (void)signal;
    note();
    siglongjmp(away, 1);
}

static void stay(int signal)
{
    (void)signal;
    note();
}

static void open_wall(int signal)
{
    (void)signal;
    note();
    mprotect(wall, PAGE, PROT_READ | PROT_WRITE);
}

static void set(int signal, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    need(sigaction(signal, &action, NULL) == 0, "sigaction");
}

static void use_stack(char *at, size_t size)
{
    stack_t stack = {.ss_sp = at, .ss_size = size};
    need(sigaltstack(&stack, NULL) == 0, "sigaltstack");
    low = at;
    high = at + size;
}

static int fault(void)
{
    need(mprotect(wall, PAGE, PROT_NONE) == 0, "mprotect");
    on_it = right = 0;
    *(volatile char *)wall = 1;
    return right;
}

/* Recursion without an end, as far as the stack is concerned, and not turned into a loop. */
static int deep(volatile int *n)
{
    if (*n < 0)
        return 0;
    volatile char room[1024];
    room[0] = (char)*n;
    *n += 1;
    return deep(n) + room[0];
}

static void *overflow(void *stack)
{
    use_stack(stack, 16384);
    volatile int n = 0;
    if (sigsetjmp(away, 1) == 0)
        return (void *)(intptr_t)deep(&n);
    return (void *)(intptr_t)(n > 100 && on_it && right && fresh());
}

static void *touches_later(void *pipe)
{
    char byte;
    sigset_t now;
    if (read(*(int *)pipe, &byte, 1) != 1)
        return NULL;
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    return (void *)(intptr_t)(sigismember(&now, SIGSEGV) && sigismember(&now, SIGTERM) && fresh() && fresh());
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "segv_stacks");
    if (command.write)
        close(make_pages(path, 96));
    if (!command.check)
        return 0;

    wall = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(wall != MAP_FAILED, "mmap");
    /* A thread that has everything blocked before the file is mapped. */
    int ends[2];
    need(pipe(ends) == 0, "pipe");
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t early, thread;
    need(pthread_create(&early, NULL, touches_later, &ends[0]) == 0, "pthread_create");
    pthread_sigmask(SIG_SETMASK, &before, NULL);

    int fd = open_or_fail(path, O_RDWR);
    map = map_or_fail(fd, 96 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    void *result = NULL;
    need(write(ends[1], "x", 1) == 1 && pthread_join(early, &result) == 0, "pthread_join");
    check(result != NULL, "a thread that blocked everything before the file was mapped finds its pages, and blocks it still");

    static char small[8192], large[65536];
    use_stack(small, sizeof small);
    set(SIGUSR1, stay, SA_ONSTACK);
    raise(SIGUSR1);
    check(on_it && right, "a handler on a small alternate stack finds its pages");
    set(SIGUSR1, stay, 0);
    raise(SIGUSR1);
    check(!on_it && right, "one that did not ask for it is not on it, and finds them too");

    use_stack(large, sizeof large);
    set(SIGSEGV, open_wall, SA_ONSTACK);
    check(fault() && on_it, "a SIGSEGV handler that asked for it is on the alternate stack");
    set(SIGSEGV, open_wall, 0);
    check(fault() && !on_it && fresh(), "one that did not ask for it is not");
    set(SIGSEGV, leave, SA_ONSTACK);
    for (turns = 0; turns < 4; turns++)
        if (sigsetjmp(away, 1) == 0)
            need(fault() < 0, "a fault");
        else
            need(on_it && right && fresh(), "after a jump");
    check(turns == 4, "siglongjmp out of it, four times");
    if (sigsetjmp(away, 1) == 0)
        (void)*(volatile char *)8;
    check(right && fresh(), "and of a load from near the address 0");

    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    static char its[16384];
    need(pthread_create(&thread, &attributes, overflow, its) == 0 && pthread_join(thread, &result) == 0, "a thread");
    check(result != NULL, "a thread whose stack overflows handles that on its alternate stack");

    set(SIGUSR1, stay, SA_ONSTACK);
    use_stack(map + 64 * PAGE, 16 * PAGE);
    raise(SIGUSR1);
    check(on_it && right, "an alternate stack that lies in the mapped file");
    need(msync(map, 96 * PAGE, MS_SYNC) == 0 && fsync(fd) == 0, "msync");
    raise(SIGUSR1);
    check(on_it && right, "and again after a sync");
    set(SIGSEGV, open_wall, SA_ONSTACK);
    check(fault() && on_it, "a fault that is handled there");
    pid_t child = fork();
    if (child == 0) {
        raise(SIGUSR1);
        _exit(on_it && right ? 5 : 6);
    }
    check(wait_for(child) == 5, "and in a child");
    return unlink(path) != 0;
}
