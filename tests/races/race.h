/* race.h: what the programs of this directory share. Each ends with 2 where the test itself can't go on. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

#define must(what) ((what) ? (void)0 : fail(__FILE__, __LINE__, #what))

__attribute__((unused)) static void fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, strerror(errno));
    _exit(2);
}

__attribute__((unused)) static char *shared(int fd, off_t offset, size_t length)
{
    char *base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
    must(base != MAP_FAILED);
    return base;
}

__attribute__((unused)) static void store_word(char *page, uint32_t word)
{
    *(volatile uint32_t *)page = word;
}

__attribute__((unused)) static uint32_t load_word(const char *page)
{
    return *(const volatile uint32_t *)page;
}
