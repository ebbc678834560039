/*
 * guest: a program that never touches netmem, and looks whether something else did.
 *
 *     guest
 *
 * Does what programs do: files, a pipe, memory, a child, a thread. Then prints how many tasks and descriptors
 * it has, and each descriptor that it did not open.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int entries(const char *directory, int print)
{
    int count = 0;
    DIR *open = opendir(directory);
    for (struct dirent *entry; open != NULL && (entry = readdir(open)) != NULL;) {
        if (entry->d_name[0] == '.' || (print && atoi(entry->d_name) == dirfd(open)))
            continue;
        count++;
        char path[PATH_MAX], target[PATH_MAX] = "";
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        if (print && atoi(entry->d_name) > 2 && readlink(path, target, sizeof target - 1) > 0)
            printf("not ours: %s\n", target);
    }
    closedir(open);
    return count;
}

static void *nothing(void *argument)
{
    return argument;
}

static void live(void)
{
    char text[64], name[] = "/tmp/netmem-guest-XXXXXX";
    int pair[2], fd = mkstemp(name);
    struct stat status;
    if (fd < 0 || write(fd, "text", 4) != 4 || fsync(fd) != 0 || stat(name, &status) != 0 || pipe(pair) != 0)
        abort();
    char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED || memcmp(map, "text", 4) != 0 || msync(map, 4096, MS_SYNC) != 0)
        abort();
    if (pread(fd, text, sizeof text, 0) != 4 || ftruncate(fd, 0) != 0 || munmap(map, 4096) != 0)
        abort();
    FILE *file = fopen("/proc/self/status", "r");
    if (file == NULL || fgets(text, sizeof text, file) == NULL || fclose(file) != 0)
        abort();
    free(malloc(64 << 20));
    pthread_t thread;
    if (pthread_create(&thread, NULL, nothing, NULL) != 0 || pthread_join(thread, NULL) != 0)
        abort();
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    if (waitpid(child, NULL, 0) != child)
        abort();
    close(pair[0]);
    close(pair[1]);
    close(fd);
    unlink(name);
}

int main(void)
{
    closefrom(3); /* what the test's own parent left open */
    live();
    printf("tasks %d\n", entries("/proc/self/task", 0));
    printf("descriptors %d\n", entries("/proc/self/fd", 1));
    return 0;
}
