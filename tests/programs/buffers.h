/* Places for the buffers of system calls, in a mapping: pages that nobody touched, and pages that were stored into and synced,
   so that an engine which waits for stores has them protected. Each place crosses from one page into the next. */
#ifndef BUFFERS_H
#define BUFFERS_H

#include "program.h"

enum { UNTOUCHED, SYNCED, STATES };

struct area {
    char *map;
    size_t pages, next;
};

static inline struct area area_of(const char *path, size_t pages)
{
    int fd = open_or_fail(path, O_RDWR);
    struct area area = {map_or_fail(fd, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED), pages, 0};
    close(fd);
    return area;
}

/* Room for `length` bytes that begins on one page and ends on another, unless it is a mere number; pages are used once. */
static inline void *place(struct area *area, int state, size_t length)
{
    size_t half = length > 8 ? (length / 2 + 7) / 8 * 8 : length;
    size_t before = (half + PAGE - 1) / PAGE, behind = (length - half) / PAGE + 1;
    need(area->next + before + behind <= area->pages, "enough pages");
    char *first = area->map + area->next * PAGE;
    char *at = first + before * PAGE - half;
    area->next += before + behind;
    if (state == SYNCED) {
        for (size_t i = 0; i < before + behind; i++)
            first[i * PAGE] ^= 0;
        first[0] = 's';
        at[length - 1] = 's';
        at[0] = 's';
        need(msync(area->map, area->pages * PAGE, MS_SYNC) == 0, "msync of a place");
    }
    return at;
}

/* The bytes around a place are the file's. */
static inline int untouched_around(const char *at, size_t length, int state)
{
    return state == SYNCED || (at[-1] >= 'A' && at[-1] <= 'Z' && at[length] >= 'A' && at[length] <= 'Z');
}

#endif
