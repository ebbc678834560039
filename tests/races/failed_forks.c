/*
 * A fork that the kernel refuses leaves nothing behind: a region without a name that is unmapped after it ends. One that it does
 * not refuse leaves errno alone.
 *
 *     failed_forks ROUNDS
 */
#include "netmem.h"
#include "race.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static int nothing(void *none)
{
    return none != NULL;
}

/* EAGAIN for every child with memory of its own. */
static void refuse_children(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_VM, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

int main(int argc, char **argv)
{
    static char stack[64 * 1024];
    must(argc == 2);
    errno = EXDEV;
    pid_t child = fork();
    if (child == 0)
        _exit(errno != EXDEV);
    int status = -1;
    must(child > 0 && errno == EXDEV && waitpid(child, &status, 0) == child && status == 0);
    refuse_children();
    for (int round = 0; round < atoi(argv[1]); round++) {
        char *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_NETMEM | MAP_SHARED, -1, 0);
        must(at != MAP_FAILED);
        *at = 1;
        errno = 0;
        switch (round % 3) {
        case 0:
            must(fork() == -1 && errno == EAGAIN);
            break;
        case 1:
            must(_Fork() == -1 && errno == EAGAIN);
            break;
        default:
            must(clone(nothing, stack + sizeof stack, SIGCHLD, NULL) == -1 && errno == EAGAIN);
        }
        must(munmap(at, PAGE) == 0);
    }
    return 0;
}
