/*
 * The functions of netmem.h one after the other, two mappings of a region committed at once, and each refusal with its errno.
 */
#include <errno.h>
#include <fcntl.h>
#include <netmem.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int failures;

static void check(int holds, const char *what)
{
    printf("%s: %s\n", holds ? "ok" : "FAIL", what);
    failures += !holds;
}

static int refused(int result, int error)
{
    return result == -1 && errno == error && netmem_last_error()[0] != '\0';
}

int main(void)
{
    struct netmem_stats before, after;
    uint64_t size = 0, first = 0, second = 0;
    check(strcmp(netmem_version(), "0.1.0") == 0, "the version is the header's");
    check(netmem_stats(&before, sizeof before) == 0 && before.regions == 0, "nothing is counted before the first use");
    check(refused(netmem_open("../x", O_RDWR, 0), EINVAL), "a name with .. is EINVAL");
    check(refused(netmem_open("missing", O_RDWR, 0), ENOENT), "a missing name is ENOENT");
    int fd = netmem_open("api", O_RDWR | O_CREAT, 0600);
    check(fd >= 0 && netmem_resize(fd, 64 * 4096) == 0, "open and resize");
    check(netmem_size(fd, &size) == 0 && size == 64 * 4096, "size");
    check(netmem_engine()[0] != '\0', "the engine has a name");
    char *one = netmem_map(fd, NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
    char *two = netmem_map(fd, NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 32 * 4096);
    check(one != MAP_FAILED && two != MAP_FAILED, "two mappings");
    memset(one, '1', 8 * 4096);
    memset(two, '2', 8 * 4096);
    errno = 77;
    check(netmem_commit(fd, 0, &first) == 0 && errno == 77, "a commit, errno untouched");
    check(netmem_commit(fd, NETMEM_STRICT, &second) == 0 && second == first, "nothing changed: the same epoch");
    one[0] = 'x';
    check(netmem_sync(one, 4096, MS_SYNC) == 0 && netmem_commit(fd, 0, &second) == 0 && second == first + 1, "sync commits");
    uint64_t both[2];
    check(netmem_commit_together((int[]){fd, fd}, 2, 0, both) == 0 && both[0] == second && both[1] == second, "together: one region twice");
    check(refused(netmem_commit_together(NULL, 1, 0, NULL), EINVAL), "nothing to commit together is EINVAL");
    check(refused(netmem_commit_together((int[]){fd, STDIN_FILENO}, 2, 0, both), EBADF), "together with no region is EBADF");
    check(netmem_refresh(fd, &first) == 0 && first == second, "refresh is at the newest epoch");
    check(netmem_prefetch(fd, 0, 0) == 0, "prefetch of all");
    check(netmem_stats(&after, sizeof after) == 0 && after.commits == 2 && after.pages_committed == 17, "two commits, 17 pages");
    check(after.mappings == 2 && after.regions == 1, "two mappings of one region");
    check(refused(netmem_commit(fd, 0x80, NULL), EINVAL), "an unknown flag is EINVAL");
    check(refused(netmem_commit(STDIN_FILENO, 0, NULL), EBADF), "a descriptor of something else is EBADF");
    check(refused(netmem_size(fd, NULL), EINVAL), "nowhere to put the size is EINVAL");
    check(refused(netmem_stats(&after, 7), EINVAL), "an odd size of statistics is EINVAL");
    check(refused(netmem_unmap(&after, 4096), EINVAL), "a range that is not ours is EINVAL");
    check(netmem_unmap(one, 8 * 4096) == 0 && netmem_unmap(two, 8 * 4096) == 0 && close(fd) == 0, "unmap and close");
    return failures != 0;
}
