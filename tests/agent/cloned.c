/* A child by a system call that no library sees: its first touch of the mapping is SIGSEGV, and the page is its parent's as before.

       cloned FILE      64 pages of letters */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

static long raw(long number, long a, long b)
{
#ifdef __x86_64__
    register long r10 __asm__("r10") = 0;
    register long r8 __asm__("r8") = 0;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(0L), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return result;
#else
    return syscall(number, a, b, 0, 0, 0);
#endif
}

int main(int argc, char **argv)
{
    int fd = argc == 2 ? open(argv[1], O_RDWR) : -1;
    char *map = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return 2;
    for (int page = 0; page < 4; page++) {
        volatile char *at = map + page * PAGE;
        if (page % 2 == 1)
            (void)*at; /* here already, in the parent */
        long child = raw(SYS_clone, SIGCHLD, 0);
        if (child == 0) {
            *at = 'z';
            raw(SYS_exit_group, 7, 0);
        }
        int status = 0;
        if (waitpid((pid_t)child, &status, 0) != child)
            return 3;
        printf("%s %c\n", WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV ? "SIGSEGV" : "lived", *at);
    }
    return 0;
}
