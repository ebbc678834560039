/* Children of every kind while nearly all of the memory is away: fork, _Fork, vfork, posix_spawn, system, popen, exec, daemon; one clone
   that goes past libc; handlers that jump out.
   children WHAT: prints `ok WHAT`, or a WRONG line and exits 3. */
#include "pattern.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PAGES (12 << 10)
extern char **environ;
static char *memory;

static void fill_all(void) {
    memory = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OK(memory != MAP_FAILED);
    for (size_t i = 0; i < PAGES; i++)
        fill_words(memory + i * PAGE, WORDS, i + 1);
}

static void check(const char *who, size_t step) {
    for (size_t i = 0; i < PAGES; i += step) {
        ssize_t wrong = wrong_word(memory + i * PAGE, WORDS, i + 1);
        if (wrong >= 0)
            WRONG("%s: page %zu, word %zd", who, i, wrong);
    }
}

static void ended_well(pid_t child) {
    int status;
    OK(waitpid(child, &status, 0) == child);
    if (status != 0)
        WRONG("a child ended with %#x", status);
}

/* Generations, and a parent and child that store different things into what both had. */
static void forks(void) {
    for (int i = 0; i < 3; i++) {
        pid_t child = i == 1 ? _Fork() : fork();
        OK(child != -1);
        if (child == 0) {
            check("child", 1);
            for (size_t j = 0; j < PAGES; j += 3)
                fill_words(memory + j * PAGE, WORDS, 1000000 + j);
            pid_t grandchild = fork();
            OK(grandchild != -1);
            for (size_t j = 0; j < PAGES; j++)
                if (wrong_word(memory + j * PAGE, WORDS, j % 3 == 0 ? 1000000 + j : j + 1) >= 0)
                    WRONG("%s: page %zu", grandchild == 0 ? "grandchild" : "child", j);
            if (grandchild != 0)
                ended_well(grandchild);
            _exit(0);
        }
        check("parent beside its child", 1);
        ended_well(child);
    }
    check("parent", 1);
}

/* Programs get their arguments and environment from pages that are away, and the descriptors. */
static void programs(void) {
    char **arguments = malloc(3 * sizeof *arguments), *script = malloc(PAGE), *sh = strdup("sh"), *option = strdup("-c");
    char **variables = malloc(3 * sizeof *variables), *one = strdup("CHILD=far"), *two = strdup("PATH=/usr/bin:/bin"), text[100];
    strcpy(script, "test \"$CHILD\" = far");
    char *new[] = {sh, option, script, NULL};
    arguments = realloc(arguments, sizeof new);
    memcpy(arguments, new, sizeof new);
    variables[0] = one, variables[1] = two, variables[2] = NULL;
    check("away", 1);
    pid_t child;
    OK(posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, variables) == 0);
    ended_well(child);
    check("away", 1);
    OK(posix_spawnp(&child, "sh", NULL, NULL, arguments, variables) == 0);
    ended_well(child);
    check("away", 1);
    child = vfork();
    OK(child != -1);
    if (child == 0) {
        if (wrong_word(memory + 17 * PAGE, WORDS, 18) >= 0)
            _exit(1);
        execve("/bin/sh", arguments, variables);
        _exit(2);
    }
    ended_well(child);
    check("away", 1);
    child = fork();
    OK(child != -1);
    if (child == 0) {
        check("child before exec", 64);
        execve("/bin/sh", arguments, variables);
        _exit(2);
    }
    ended_well(child);
    OK(system("test -n \"$PATH\"") == 0);
    check("away", 1);
    FILE *in = popen("echo from a child", "r");
    OK(in && fgets(text, sizeof text, in) && strcmp(text, "from a child\n") == 0 && pclose(in) == 0);
    check("at the end", 1);
}

/* Threads that are made without a guard page, idle while their stacks are away, and a fork beside them. */
static int idle[2];
static void *sleeper(void *nothing) {
    char byte;
    (void)!read(idle[0], &byte, 1);
    return nothing;
}

static void stacks(void) {
    static const size_t guard[] = {0, PAGE, 16 * PAGE};
    pthread_t thread[24];
    OK(pipe(idle) == 0);
    for (int i = 0; i < 24; i++) {
        pthread_attr_t attributes;
        OK(pthread_attr_init(&attributes) == 0 && pthread_attr_setguardsize(&attributes, guard[i % 3]) == 0);
        OK(pthread_attr_setstacksize(&attributes, 256 << 10) == 0);
        OK(pthread_create(&thread[i], &attributes, sleeper, NULL) == 0);
    }
    for (int round = 0; round < 3; round++) {
        check("beside sleepers", 1);
        pid_t child = fork();
        OK(child != -1);
        if (child == 0) {
            pthread_t new;
            OK(pipe(idle) == 0 && write(idle[1], "x", 1) == 1);
            OK(pthread_create(&new, NULL, sleeper, NULL) == 0 && pthread_join(new, NULL) == 0);
            check("child of a process with threads", 1);
            _exit(0);
        }
        ended_well(child);
    }
    OK(write(idle[1], "xxxxxxxxxxxxxxxxxxxxxxxx", 24) == 24);
    for (int i = 0; i < 24; i++)
        OK(pthread_join(thread[i], NULL) == 0);
}

/* The parent is gone at once. */
static void daemons(void) {
    int pair[2];
    char byte = 0;
    OK(pipe(pair) == 0);
    pid_t child = fork();
    OK(child != -1);
    if (child == 0) {
        OK(daemon(0, 1) == 0);
        check("daemon", 1);
        OK(write(pair[1], "d", 1) == 1);
        _exit(0);
    }
    OK(close(pair[1]) == 0);
    ended_well(child);
    OK(read(pair[0], &byte, 1) == 1 && byte == 'd');
}

/* A clone that libc knows nothing of has not got what is registered: never zeros. */
static long raw_fork(void) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_fork) : "rcx", "r11", "memory");
    return result;
#else
    register long number __asm__("x8") = SYS_clone, result __asm__("x0") = SIGCHLD, a1 __asm__("x1") = 0, a2 __asm__("x2") = 0,
                  a3 __asm__("x3") = 0, a4 __asm__("x4") = 0;
    __asm__ volatile("svc 0" : "+r"(result) : "r"(number), "r"(a1), "r"(a2), "r"(a3), "r"(a4) : "memory");
    return result;
#endif
}

static void raw(void) {
    int killed = 0;
    OK(prctl(PR_SET_DUMPABLE, 0) == 0);
    for (size_t i = 0; i < PAGES; i += PAGES / 8) {
        int status;
        long child = raw_fork();
        if (child == 0) {
            volatile uint64_t *word = (uint64_t *)(memory + i * PAGE);
            long status = word[1] == word_of(i + 1, 1) ? 0 : 3;
#ifdef __x86_64__
            __asm__ volatile("syscall" ::"a"(SYS_exit_group), "D"(status) : "rcx", "r11", "memory");
#endif
            _exit(status);
        }
        OK(child > 0 && waitpid(child, &status, 0) == child);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV)
            killed++;
        else if (status != 0)
            WRONG("page %zu in a raw child: %#x", i, status);
    }
    if (killed == 0)
        WRONG("nothing was away");
    check("parent", 1);
}

/* A handler that leaves by siglongjmp, from wherever a timer finds the thread: waiting for a page, too. */
static sigjmp_buf back;
static volatile sig_atomic_t armed, jumps;
static void jump(int number) {
    (void)number;
    if (armed) {
        armed = 0;
        jumps++;
        siglongjmp(back, 1);
    }
}

static void jumping(void) {
    struct sigaction action = {.sa_handler = jump};
    struct itimerspec every = {{0, 3000000}, {0, 3000000}};
    timer_t timer;
    OK(sigaction(SIGALRM, &action, NULL) == 0 && timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0);
    OK(timer_settime(timer, 0, &every, NULL) == 0);
    for (volatile int round = 0; round < 60; round++) {
        volatile size_t at = (size_t)round * 977;
        if (sigsetjmp(back, 1) == 0) {
            armed = 1;
            for (;; at += 7)
                if (wrong_word(memory + at % PAGES * PAGE, WORDS, at % PAGES + 1) >= 0)
                    WRONG("page %zu", at % PAGES);
        }
    }
    OK(timer_delete(timer) == 0 && jumps == 60);
    check("after the jumps", 1);
}

/* What a child must not have of its parent stays with the parent, away or not. */
static void wishes(void) {
    char *wiped = memory, *kept = memory + (size_t)PAGES / 2 * PAGE;
    size_t length = 256 * PAGE;
    OK(madvise(wiped, length, MADV_WIPEONFORK) == 0);
    check("away", 1);
    pid_t child = fork();
    OK(child != -1);
    if (child == 0) {
        for (size_t i = 0; i < 256; i++)
            if (wrong_word(wiped + i * PAGE, WORDS, 0) >= 0)
                WRONG("page %zu was not wiped", i);
        if (wrong_word(kept, WORDS, PAGES / 2 + 1) >= 0)
            WRONG("a page that was not to be wiped");
        _exit(0);
    }
    ended_well(child);
    check("parent", 1);
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {{"forks", forks},     {"programs", programs}, {"stacks", stacks}, {"daemons", daemons},
               {"raw", raw},         {"jumping", jumping},   {"wishes", wishes}};
    fill_all();
    check("filled", 1);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (count > 1 && strcmp(arguments[1], all[i].name) == 0) {
            all[i].run();
            printf("ok %s\n", all[i].name);
            return 0;
        }
    return 2;
}
