/*
 * Touching pages in an order and timing each touch, by one thread or by several that share them: the same for the floor
 * programs and for what is measured beside them.
 */
#ifndef TOUCH_H
#define TOUCH_H

#include "floor.h"
#include <pthread.h>

enum { THREADS_MAX = 64 };

struct touching {
    char *base;
    const uint64_t *order; /* page numbers */
    size_t count;          /* how many */
    size_t threads;
    uint64_t *ns;          /* of each touch, in its place in `order` */
    void (*begin)(void);   /* what a thread does before its first touch; may be NULL */
    pthread_barrier_t ready;
};

struct toucher {
    struct touching *all;
    size_t number;
    uint64_t wrong, began, ended;
};

static void *touch_share(void *argument)
{
    struct toucher *self = argument;
    struct touching *all = self->all;
    if (all->begin != NULL)
        all->begin();
    pthread_barrier_wait(&all->ready);
    self->began = now_ns();
    for (size_t i = self->number; i < all->count; i += all->threads) {
        volatile uint64_t *at = (volatile uint64_t *)(void *)(all->base + all->order[i] * PAGE_BYTES);
        uint64_t begin = now_ns(), value = *at;
        all->ns[i] = now_ns() - begin;
        self->wrong += value != stamp(all->order[i]);
    }
    self->ended = now_ns();
    return NULL;
}

/* Touches all, the calling thread its share too, and prints what that took; returns how many pages were not what they
 * should be. */
static inline uint64_t touch_all(struct touching *all)
{
    struct toucher touchers[THREADS_MAX];
    pthread_t threads[THREADS_MAX];
    uint64_t wrong = 0, began = UINT64_MAX, ended = 0;
    if (all->threads == 0 || all->threads > THREADS_MAX || all->count == 0) {
        fprintf(stderr, "1 to %d threads and at least a page\n", THREADS_MAX);
        exit(2);
    }
    memset(all->ns, 0, all->count * sizeof *all->ns); /* its own faults are not in the figures */
    pthread_barrier_init(&all->ready, NULL, (unsigned)all->threads);
    for (size_t i = 0; i < all->threads; i++) {
        touchers[i] = (struct toucher){.all = all, .number = i};
        if (i > 0 && pthread_create(&threads[i], NULL, touch_share, &touchers[i]) != 0)
            die("pthread_create");
    }
    touch_share(&touchers[0]);
    for (size_t i = 0; i < all->threads; i++) {
        if (i > 0)
            pthread_join(threads[i], NULL);
        wrong += touchers[i].wrong;
        began = touchers[i].began < began ? touchers[i].began : began;
        ended = touchers[i].ended > ended ? touchers[i].ended : ended;
    }
    uint64_t took = ended - began;
    printf("threads=%zu\ntouched=%zu\ntotal_ns=%ju\n", all->threads, all->count, (uintmax_t)took);
    printf("mb_per_s=%.1f\n", (double)all->count * PAGE_BYTES * 1e3 / (double)took);
    printf("touches_per_s=%.0f\n", (double)all->count * 1e9 / (double)took);
    return wrong;
}

#endif
