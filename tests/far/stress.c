/* Two processes of eight threads do everything to their memory that a program can, and check every byte that they ever wrote.
   stress SEED SECONDS: 0 if all was right, 3 at the first wrong byte.

   A page's content follows from its stamp; 0 is zeros. What a thread is about to change it marks as busy before, so that a child that
   any thread forks can check everything that was not busy at that moment: a thread's stores are in the child up to one of them. */
#include "pattern.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define THREADS 8
#define SLOTS 24
#define SLOT_PAGES 256
#define THREAD_PAGES 2048
#define BLOCKS 16
#define BLOCK_WORDS (40 << 10)
#define COMMON 256
#define SBRK_PAGES 1024

/* A mapping. */
struct slot {
    volatile int busy;
    unsigned pages;
    char *at;
    uint64_t stamp[SLOT_PAGES];
    /* After MADV_FREE: what it was, or zeros. */
    char maybe[SLOT_PAGES];
};

/* A block of the heap. */
struct block {
    volatile int busy;
    size_t words;
    uint64_t *at;
    uint64_t stamp;
};

static struct worker {
    struct slot slot[SLOTS];
    struct block block[BLOCKS];
    /* What was added to this thread's word of each page of all. */
    uint64_t added[COMMON];
    uint64_t state;
    unsigned pages;
    int file, pipe[2];
    pid_t child;
    /* Only the first has it. */
    struct slot brk[SBRK_PAGES / SLOT_PAGES];
    unsigned brks;
} worker[THREADS];
static char *common;
static double until;
static volatile unsigned long operations, forks, moves_refused;
/* A fork of one at a time in each process: what is checked takes long enough. */
static pthread_mutex_t forking = PTHREAD_MUTEX_INITIALIZER;

static uint64_t dice(struct worker *w, uint64_t sides) {
    w->state += 0x9e3779b97f4a7c15;
    return mix(w->state) % sides;
}

static void check_page(struct slot *s, unsigned i, const char *why) {
    char *at = s->at + (size_t)i * PAGE;
    if (s->maybe[i] && *(volatile uint64_t *)at == 0) {
        ssize_t wrong = wrong_word(at, WORDS, 0);
        if (wrong >= 0)
            WRONG("%s: page %p given up: word %zd is not zero", why, (void *)at, wrong);
        return;
    }
    ssize_t wrong = wrong_word(at, WORDS, s->stamp[i]);
    if (wrong >= 0)
        WRONG("%s: page %p (%u of %u), word %zd is %lx, not %lx", why, (void *)at, i, s->pages, wrong, ((uint64_t *)at)[wrong],
              word_of(s->stamp[i], wrong));
}

static void check_slot(struct slot *s, const char *why) {
    for (unsigned i = 0; s->at && i < s->pages; i++)
        check_page(s, i, why);
}

static void check_block(struct block *b, const char *why) {
    ssize_t wrong = b->at ? wrong_word(b->at, b->words, b->stamp) : -1;
    if (wrong >= 0)
        WRONG("%s: block %p of %zu words, word %zd is %lx, not %lx", why, (void *)b->at, b->words, wrong, b->at[wrong],
              word_of(b->stamp, wrong));
}

static void check_common(struct worker *w) {
    unsigned i = dice(w, COMMON), me = w - worker;
    volatile uint64_t *page = (uint64_t *)(common + (size_t)i * PAGE);
    if (page[me] != w->added[i])
        WRONG("common page %u, thread %u: %lu, not %lu", i, me, page[me], w->added[i]);
    for (unsigned j = THREADS; j < WORDS; j++)
        if (page[j] != word_of(i + 1, j))
            WRONG("common page %u, word %u is %lx", i, j, page[j]);
    page[me]++;
    w->added[i]++;
}

/* Everything that nobody is changing. */
static void check_all(const char *why) {
    for (struct worker *w = worker; w < worker + THREADS; w++) {
        for (int i = 0; i < SLOTS; i++)
            if (!w->slot[i].busy)
                check_slot(&w->slot[i], why);
        for (int i = 0; i < BLOCKS; i++)
            if (!w->block[i].busy)
                check_block(&w->block[i], why);
        for (unsigned i = 0; i < w->brks; i++)
            if (!w->brk[i].busy)
                check_slot(&w->brk[i], why);
    }
}

static uint64_t new_stamp(struct worker *w) { return mix(w->state += 0x9e3779b97f4a7c15) | 1; }

static void store(struct worker *w, struct slot *s, unsigned i) {
    s->stamp[i] = new_stamp(w);
    s->maybe[i] = 0;
    fill_words(s->at + (size_t)i * PAGE, WORDS, s->stamp[i]);
}

/* A slot that is mapped, if there is one, and a range of its pages. */
static struct slot *some(struct worker *w, unsigned *first, unsigned *count) {
    struct slot *s = &w->slot[dice(w, SLOTS)];
    if (!s->at)
        return NULL;
    *first = dice(w, s->pages);
    *count = 1 + dice(w, s->pages - *first);
    return s;
}

static void map(struct worker *w) {
    struct slot *s = &w->slot[dice(w, SLOTS)];
    unsigned pages = 1 + dice(w, dice(w, 2) ? 16 : SLOT_PAGES);
    if (s->at || w->pages + pages > THREAD_PAGES)
        return;
    begin(&s->busy);
    s->at = mmap(NULL, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OK(s->at != MAP_FAILED);
    s->pages = pages;
    w->pages += pages;
    memset(s->stamp, 0, sizeof s->stamp);
    memset(s->maybe, 0, sizeof s->maybe);
    for (unsigned i = 0; i < pages; i++)
        if (dice(w, 8))
            store(w, s, i);
    end(&s->busy);
}

static void unmap(struct worker *w) {
    unsigned first, count;
    struct slot *s = some(w, &first, &count);
    if (!s || w->pages < THREAD_PAGES / 2)
        return;
    begin(&s->busy);
    unsigned kept = dice(w, 2) ? 0 : first;
    if (kept == 0 && dice(w, 2)) {
        /* The address is taken again at once. */
        OK(mmap(s->at, (size_t)s->pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == s->at);
        memset(s->stamp, 0, sizeof s->stamp);
        memset(s->maybe, 0, sizeof s->maybe);
    } else {
        OK(munmap(s->at + (size_t)kept * PAGE, (size_t)(s->pages - kept) * PAGE) == 0);
        w->pages -= s->pages - kept;
        s->pages = kept;
        if (kept == 0)
            s->at = NULL;
    }
    end(&s->busy);
}

static void remap(struct worker *w) {
    unsigned first, count;
    struct slot *s = some(w, &first, &count);
    if (!s)
        return;
    unsigned pages = dice(w, 3) ? s->pages : 1 + dice(w, SLOT_PAGES);
    if (w->pages + pages > THREAD_PAGES + s->pages)
        return;
    begin(&s->busy);
    size_t old = (size_t)s->pages * PAGE, new = (size_t)pages * PAGE;
    char *to;
    if (pages != s->pages) {
        to = mremap(s->at, old, new, MREMAP_MAYMOVE);
    } else {
        char *there = mmap(NULL, new, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        OK(there != MAP_FAILED);
        int stays = dice(w, 3) == 0 ? MREMAP_DONTUNMAP : 0;
        to = mremap(s->at, old, new, MREMAP_MAYMOVE | MREMAP_FIXED | stays, there);
        /* One that was refused may have unmapped its target: others may be there by now. */
        if (to != MAP_FAILED && stays) {
            for (unsigned i = 0; i < pages; i++)
                if (wrong_word(s->at + (size_t)i * PAGE, WORDS, 0) >= 0)
                    WRONG("mremap left something at %p", (void *)(s->at + (size_t)i * PAGE));
            OK(munmap(s->at, old) == 0);
        }
    }
    if (to == MAP_FAILED) {
        if (errno != EFAULT)
            WRONG("mremap: %s", strerror(errno));
        moves_refused++;
    } else {
        for (unsigned i = s->pages; i < pages; i++)
            s->stamp[i] = s->maybe[i] = 0;
        w->pages += pages - s->pages;
        s->at = to;
        s->pages = pages;
    }
    end(&s->busy);
}

static void advise(struct worker *w) {
    unsigned first, count;
    struct slot *s = some(w, &first, &count);
    if (!s)
        return;
    static const int harmless[] = {MADV_COLD, MADV_WILLNEED, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_SEQUENTIAL};
    begin(&s->busy);
    char *at = s->at + (size_t)first * PAGE;
    switch (dice(w, 4)) {
    case 0:
        OK(madvise(at, (size_t)count * PAGE, MADV_DONTNEED) == 0);
        memset(s->stamp + first, 0, count * sizeof *s->stamp);
        memset(s->maybe + first, 0, count);
        break;
    case 1:
        OK(madvise(at, (size_t)count * PAGE, MADV_FREE) == 0);
        memset(s->maybe + first, 1, count);
        break;
    default:
        /* Of all of it: advice that a mapping keeps would cut it in two. */
        (void)madvise(s->at, (size_t)s->pages * PAGE, harmless[dice(w, 6)]);
    }
    end(&s->busy);
}

static void protect(struct worker *w) {
    unsigned first, count;
    struct slot *s = some(w, &first, &count);
    if (!s)
        return;
    begin(&s->busy);
    char *at = s->at + (size_t)first * PAGE;
    size_t length = (size_t)count * PAGE;
    OK(mprotect(at, length, PROT_READ) == 0);
    check_slot(s, "while a part is read-only");
    OK(mprotect(at, length, PROT_NONE) == 0);
    if (dice(w, 2))
        sched_yield();
    errno = 0;
    if (write(w->file, at, 1) != -1 || errno != EFAULT)
        WRONG("write from PROT_NONE: %s", strerror(errno));
    OK(mprotect(at, length, PROT_READ | PROT_WRITE) == 0);
    end(&s->busy);
}

/* Pages go through a file or a pipe into others. */
static void transfer(struct worker *w) {
    unsigned from, count, to, room;
    struct slot *a = some(w, &from, &count), *b = some(w, &to, &room);
    if (!a || !b)
        return;
    count = count < room ? count : room;
    count = count < 16 ? count : 16;
    if (a == b)
        return;
    size_t length = (size_t)count * PAGE;
    begin(&a->busy);
    for (unsigned i = 0; i < count; i++)
        if (a->maybe[from + i])
            store(w, a, from + i);
    end(&a->busy);
    begin(&b->busy);
    char *source = a->at + (size_t)from * PAGE, *target = b->at + (size_t)to * PAGE;
    if (dice(w, 2)) {
        OK(pwrite(w->file, source, length, 0) == (ssize_t)length);
        OK(pread(w->file, target, length, 0) == (ssize_t)length);
    } else {
        OK(write(w->pipe[1], source, length) == (ssize_t)length);
        OK(read(w->pipe[0], target, length) == (ssize_t)length);
    }
    memcpy(b->stamp + to, a->stamp + from, count * sizeof *a->stamp);
    memset(b->maybe + to, 0, count);
    for (unsigned i = 0; i < count; i++)
        check_page(b, to + i, "after read");
    end(&b->busy);
}

static void heap(struct worker *w) {
    struct block *b = &w->block[dice(w, BLOCKS)];
    size_t words = 1 + dice(w, dice(w, 3) ? 2000 : BLOCK_WORDS);
    check_block(b, "heap");
    begin(&b->busy);
    if (!b->at) {
        OK(b->at = calloc(words, 8));
        ssize_t wrong = wrong_word(b->at, words, 0);
        if (wrong >= 0)
            WRONG("calloc: word %zd at %p", wrong, (void *)b->at);
    } else if (dice(w, 2)) {
        OK(b->at = realloc(b->at, words * 8));
        ssize_t wrong = wrong_word(b->at, words < b->words ? words : b->words, b->stamp);
        if (wrong >= 0)
            WRONG("realloc: word %zd at %p", wrong, (void *)b->at);
    } else {
        free(b->at);
        b->at = NULL;
    }
    b->words = words;
    b->stamp = new_stamp(w);
    if (b->at)
        fill_words(b->at, words, b->stamp);
    end(&b->busy);
}

/* Only the first thread: nobody else moves the break, since libc has enough on top. */
static void move_break(struct worker *w) {
    struct slot *s;
    if (w != worker)
        return;
    if (w->brks < SBRK_PAGES / SLOT_PAGES && dice(w, 2)) {
        s = &w->brk[w->brks];
        begin(&s->busy);
        s->pages = 1 + dice(w, SLOT_PAGES);
        OK((s->at = sbrk((size_t)s->pages * PAGE)) != (void *)-1);
        memset(s->maybe, 0, sizeof s->maybe);
        for (unsigned i = 0; i < s->pages; i++) {
            s->stamp[i] = 0;
            check_page(s, i, "new break");
            if (dice(w, 4))
                store(w, s, i);
        }
        end(&s->busy);
        w->brks++;
    } else if (w->brks > 0) {
        s = &w->brk[w->brks - 1];
        check_slot(s, "break");
        begin(&s->busy);
        w->brks--;
        OK(sbrk(-(intptr_t)s->pages * PAGE) != (void *)-1);
        s->at = NULL;
        end(&s->busy);
    }
}

static void *deep(void *argument) {
    struct worker *w = argument;
    uint64_t words[3000];
    fill_words(words, 3000, (uintptr_t)w);
    check_common(w);
    if (wrong_word(words, 3000, (uintptr_t)w) >= 0)
        WRONG("a stack");
    free(malloc(100));
    return NULL;
}

static void short_thread(struct worker *w) {
    static const size_t guard[] = {0, PAGE, 16 * PAGE};
    pthread_attr_t attributes;
    pthread_t thread;
    OK(pthread_attr_init(&attributes) == 0);
    OK(pthread_attr_setstacksize(&attributes, (64 << 10) + (64 << 10) * dice(w, 2)) == 0);
    OK(pthread_attr_setguardsize(&attributes, guard[dice(w, 3)]) == 0);
    OK(pthread_create(&thread, &attributes, deep, w) == 0);
    OK(pthread_attr_destroy(&attributes) == 0);
    OK(pthread_join(thread, NULL) == 0);
}

static void operation(struct worker *w) {
    unsigned first, count;
    struct slot *s;
    uint64_t what = dice(w, 100);
    if (what < 30) {
        if ((s = some(w, &first, &count)))
            for (unsigned i = first; i < first + count && i < first + 24; i++)
                check_page(s, i, "load");
    } else if (what < 50) {
        if ((s = some(w, &first, &count))) {
            begin(&s->busy);
            for (unsigned i = first; i < first + count && i < first + 24; i++)
                store(w, s, i);
            end(&s->busy);
        }
    } else if (what < 58) {
        check_common(w);
    } else if (what < 66) {
        transfer(w);
    } else if (what < 72) {
        advise(w);
    } else if (what < 76) {
        remap(w);
    } else if (what < 79) {
        protect(w);
    } else if (what < 83) {
        unmap(w);
    } else if (what < 91) {
        map(w);
    } else if (what < 96) {
        heap(w);
    } else if (what < 98) {
        move_break(w);
    } else {
        short_thread(w);
    }
    __atomic_fetch_add(&operations, 1, __ATOMIC_RELAXED);
}

static void reap(struct worker *w, int how) {
    int status;
    if (w->child == 0 || waitpid(w->child, &status, how) != w->child)
        return;
    if (status != 0)
        WRONG("a forked child ended with %#x", status);
    w->child = 0;
}

static void fork_one(struct worker *w) {
    reap(w, WNOHANG);
    if (w->child != 0 || pthread_mutex_trylock(&forking) != 0)
        return;
    pid_t child = fork();
    OK(child != -1);
    if (child == 0) {
        check_all("in a forked child");
        w->child = 0;
        int pair[2];
        OK((w->file = memfd_create("own", 0)) != -1 && pipe(pair) == 0);
        memcpy(w->pipe, pair, sizeof pair);
        for (int i = 0; i < 50; i++)
            operation(w);
        for (int i = 0; i < SLOTS; i++)
            check_slot(&w->slot[i], "at a forked child's end");
        _exit(0);
    }
    w->child = child;
    forks++;
    pthread_mutex_unlock(&forking);
}

static void *work(void *argument) {
    struct worker *w = argument;
    while (now() < until) {
        if (dice(w, 400) == 0)
            fork_one(w);
        operation(w);
    }
    for (int i = 0; i < SLOTS; i++)
        check_slot(&w->slot[i], "at the end");
    reap(w, 0);
    return NULL;
}

static void run(double seconds) {
    pthread_t thread[THREADS];
    until = now() + seconds;
    for (int i = 0; i < THREADS; i++) {
        struct worker *w = &worker[i];
        OK((w->file = memfd_create("own", 0)) != -1 && pipe(w->pipe) == 0);
        OK(pthread_create(&thread[i], NULL, work, w) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        OK(pthread_join(thread[i], NULL) == 0);
    check_all("at the end");
}

int main(int count, char **arguments) {
    uint64_t seed = count > 1 ? strtoull(arguments[1], NULL, 0) : 1;
    double seconds = count > 2 ? atof(arguments[2]) : 20;
    /* The heap's top: nobody but the first thread moves the break afterwards. */
    void *top = malloc(100 << 10), *kept = malloc(16);
    free(top);
    OK(kept != NULL);
    common = mmap(NULL, COMMON * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OK(common != MAP_FAILED);
    for (int i = 0; i < COMMON; i++)
        for (int j = THREADS; j < WORDS; j++)
            ((uint64_t *)(common + (size_t)i * PAGE))[j] = word_of(i + 1, j);
    for (int i = 0; i < THREADS; i++)
        worker[i].state = mix(seed * THREADS + i);
    run(seconds / 4);
    pid_t child = fork();
    OK(child != -1);
    for (int i = 0; i < THREADS; i++)
        worker[i].state += child == 0;
    check_all("after the fork");
    run(seconds * 3 / 4);
    if (child != 0) {
        int status;
        OK(waitpid(child, &status, 0) == child);
        if (status != 0)
            WRONG("the second process ended with %#x", status);
    }
    printf("%s: %lu operations, %lu forks, %lu moves refused\n", child == 0 ? "child" : "parent", operations, forks, moves_refused);
    return 0;
}
