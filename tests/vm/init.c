// The first process of a machine that runs /plan: file systems, the loopback interface, then `sh /plan`, then off.
// What the plan ended with is the last line on the console. Static: it needs nothing that it did not mount itself.
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void file_system(const char *type, const char *at, const char *options)
{
    mkdir(at, 0755);
    if (mount(type, at, type, 0, options) != 0)
        printf("netmem-vm: %s at %s: %s\n", type, at, strerror(errno));
}

static void loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) != 0)
        printf("netmem-vm: the loopback interface: %s\n", strerror(errno));
    close(fd);
}

static int run_plan(void)
{
    pid_t plan = fork();
    if (plan == 0) {
        char *const arguments[] = {"sh", "/plan", NULL};
        char *const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LC_ALL=C", NULL};
        setsid();
        execve("/bin/sh", arguments, environment);
        printf("netmem-vm: /bin/sh: %s\n", strerror(errno));
        _exit(127);
    }
    // Orphans end up here, too.
    for (int status;;) {
        pid_t ended = wait(&status);
        if (ended == plan)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (ended < 0 && errno != EINTR)
            return 126;
    }
}

int main(void)
{
    mkdir("/dev", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    int console = open("/dev/console", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(console, fd);
    if (console > 2)
        close(console);
    setvbuf(stdout, NULL, _IONBF, 0);
    file_system("proc", "/proc", NULL);
    file_system("sysfs", "/sys", NULL);
    file_system("devpts", "/dev/pts", "mode=620");
    file_system("tmpfs", "/dev/shm", "mode=1777");
    symlink("/proc/self/fd", "/dev/fd");
    loopback();
    int status = run_plan();
    sync();
    printf("netmem-vm: the plan ended with %d\n", status);
    reboot(RB_AUTOBOOT); // with -no-reboot, the end of the emulator
    return 1;
}
