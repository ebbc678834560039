/* exit without munmap, msync or close: what was stored and written is kept. */
#include "program.h"

static void store_and_leave(const char *path)
{
    int fd = open_or_fail(path, O_RDWR);
    char *map = map_or_fail(fd, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    memcpy(map + PAGE, "stored", 6);
    check(pwrite(fd, "written", 7, 2 * PAGE) == 7 && ftruncate(fd, 6 * PAGE + 10) == 0, "it stores, writes");
    memcpy(map + 5 * PAGE, "last", 4);
    exit(0);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "exit_commits");
    if (command.write) {
        close(make_pages(path, 6));
        if (!command.check)
            store_and_leave(path); /* the process that the loader started */
        pid_t child = fork();
        if (child == 0)
            store_and_leave(path);
        need(wait_for(child) == 0, "the child exits");
    }

    char page[PAGE];
    int fd = open_or_fail(path, O_RDONLY);
    check(lseek(fd, 0, SEEK_END) == 6 * PAGE + 10, "the size is kept");
    check(pread(fd, page, 7, PAGE) == 7 && memcmp(page, "storedB", 7) == 0, "the store");
    check(pread(fd, page, 8, 2 * PAGE) == 8 && memcmp(page, "writtenC", 8) == 0, "the write");
    check(pread(fd, page, 5, 5 * PAGE) == 5 && memcmp(page, "lastF", 5) == 0, "and the store just before");
    check(pread(fd, page, PAGE, 3 * PAGE) == PAGE && all(page, PAGE, 'D'), "an untouched page is untouched");
    return unlink(path) != 0;
}
