/* mremap of what is no memory that may leave, and of memory of which a part alone is registered; and children afterwards.
   moves file PATH | shared | union | past: `past` makes its child by system call, where it has no far memory, and takes memory there. */
#include "pattern.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MIB ((size_t)1 << 20)

static char *map(size_t bytes, int flags, int file) {
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, file, 0);
    OK(memory != MAP_FAILED);
    return memory;
}

static void fill(char *memory, size_t bytes, uint64_t stamp) {
    for (size_t i = 0; i < bytes; i += PAGE)
        fill_words(memory + i, WORDS, stamp + i);
}

static void check(const char *memory, size_t bytes, uint64_t stamp) {
    for (size_t i = 0; i < bytes; i += PAGE)
        OK(wrong_word(memory + i, WORDS, stamp + i) == -1);
}

static void ends_well(pid_t child) {
    int status;
    OK(waitpid(child, &status, 0) == child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        WRONG("a child ended with %x", status);
}

static void children(const char *memory, size_t bytes, uint64_t stamp) {
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        OK(child >= 0);
        if (child == 0) {
            check(memory, bytes, stamp);
            _exit(0);
        }
        ends_well(child);
    }
}

int main(int count, char **arguments) {
    OK(count > 1);
    char how = arguments[1][0];
    int file = -1, flags = MAP_SHARED | (how == 'f' ? 0 : MAP_ANONYMOUS);
    if (how == 'f') {
        file = open(arguments[2], O_RDWR | O_CREAT, 0600);
        OK(file >= 0 && ftruncate(file, 8 * MIB) == 0);
    }
    if (how == 'f' || how == 's') {
        char *other = map(4 * MIB, flags, file), *all = map(64 * MIB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
        fill(other, 4 * MIB, 1);
        fill(all, 64 * MIB, 2);
        char *moved = mremap(other, 4 * MIB, how == 'f' ? 8 * MIB : 4 * MIB, MREMAP_MAYMOVE);
        OK(moved != MAP_FAILED);
        children(moved, 4 * MIB, 1);
        children(all, 64 * MIB, 2);
    } else if (how == 'u') {
        /* One place for both, so that they lie side by side; the second does not fit. */
        char *place = map(64 * MIB, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
        OK(munmap(place, 64 * MIB) == 0);
        int fixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
        OK(mmap(place, 6 * MIB, PROT_READ | PROT_WRITE, fixed, -1, 0) == place);
        fill(place, 6 * MIB, 3);
        OK(mmap(place + 6 * MIB, 40 * MIB, PROT_READ | PROT_WRITE, fixed, -1, 0) == place + 6 * MIB);
        char *moved = mremap(place, 46 * MIB, 50 * MIB, MREMAP_MAYMOVE);
        OK(moved != MAP_FAILED);
        check(moved, 6 * MIB, 3);
        fill(moved, 50 * MIB, 4);
        check(moved, 50 * MIB, 4);
    } else {
        char **all = (char **)map(2 * MIB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
        pid_t child = (pid_t)syscall(SYS_fork);
        OK(child >= 0);
        if (child == 0) {
            for (size_t i = 0; i < 200 << 10; i++) {
                OK((all[i] = malloc(1000)) != NULL);
                fill_words(all[i], 125, i + 1);
            }
            for (size_t i = 0; i < 200 << 10; i++)
                OK(wrong_word(all[i], 125, i + 1) == -1);
            _exit(0);
        }
        ends_well(child);
    }
    puts("ok");
    return 0;
}
