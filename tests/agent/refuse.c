/*
 * Runs a program behind a seccomp filter like the one that container engines set by default:
 *
 *     refuse ERRNO COMMAND [ARGUMENT]...
 *
 * userfaultfd and its company end with ERRNO (1, EPERM, is what Docker's says; 38, ENOSYS, what older and other ones say),
 * and clone3 with ENOSYS, so that libc takes clone.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

int main(int argc, char **argv)
{
    static const int refused[] = {
        SYS_userfaultfd,     SYS_bpf,           SYS_perf_event_open, SYS_keyctl,         SYS_add_key,
        SYS_request_key,     SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
        SYS_mount,           SYS_umount2,       SYS_unshare,         SYS_setns,          SYS_pivot_root,
        SYS_open_by_handle_at, SYS_move_pages,  SYS_mbind,           SYS_pidfd_getfd,    SYS_fanotify_init,
    };
    if (argc < 3)
        return 125;
    int number = atoi(argv[1]);
    struct sock_filter filter[2 * COUNT(refused) + 4];
    size_t n = 0;
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
    for (size_t i = 0; i < COUNT(refused); i++) {
        filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused[i], 0, 1);
        filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (number & SECCOMP_RET_DATA));
    }
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = n, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        perror("seccomp");
        return 125;
    }
    execv(argv[2], argv + 2);
    perror(argv[2]);
    return 126;
}
