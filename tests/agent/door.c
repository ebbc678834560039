/*
 * Maps the region that NETMEM_REGION names through the number NETMEM_FD, stores a word at byte 4096, and syncs.
 * With no such region the mapping fails, and the program says with which error.
 */
#include <errno.h>
#include <netmem.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

int main(void)
{
    char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, NETMEM_FD, 4096);
    if (map == MAP_FAILED) {
        printf("mmap: %s\n", strerrorname_np(errno));
        return 1;
    }
    strcpy(map, "by number");
    printf("msync: %d\n", msync(map, 8192, MS_SYNC));
    return 0;
}
