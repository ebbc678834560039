/* killed_at N COMMAND [ARGUMENT ...]: the command, killed as it enters its system call number N, counted over all of its threads. The status
   is 0 if it was, 1 if it ended before, 2 for anything else. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LONG = 65536 };

/* Threads that are between the entry of a call and its end. */
static unsigned char inside[LONG * 64];

int main(int argc, char **argv) {
    long left = argc > 2 ? atol(argv[1]) : 0;
    pid_t child = left > 0 ? fork() : -1;
    if (child < 0)
        return 2;
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        execv(argv[2], argv + 2);
        _exit(2);
    }
    int status;
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
    if (waitpid(child, &status, 0) != child || ptrace(PTRACE_SETOPTIONS, child, NULL, options) != 0)
        return 2;
    ptrace(PTRACE_SYSCALL, child, NULL, 0);
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0)
            return 2;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (thread == child)
                return 1;
            continue;
        }
        int signal = WSTOPSIG(status);
        if (signal == (SIGTRAP | 0x80)) {
            unsigned char *mine = &inside[thread % (LONG * 64)];
            *mine = !*mine;
            if (*mine && --left == 0) {
                kill(child, SIGKILL);
                while (waitpid(-1, &status, __WALL) > 0)
                    continue;
                return errno == ECHILD ? 0 : 2;
            }
            signal = 0;
        } else if (signal == SIGTRAP || signal == SIGSTOP) {
            signal = 0;
        }
        ptrace(PTRACE_SYSCALL, thread, NULL, (long)signal);
    }
}
