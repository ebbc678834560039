/*
 * Lines on ranges of the arena. AT is "PAGE" or "PAGE+OFFSET", N a number of pages.
 *
 *     map AT BYTES PROT FLAGS S OFF   PROT: letters r w x, - for none. FLAGS: s(hared) v(alidate) p(rivate); f(ixed) n(o replace)
 *                                     h(int); P(opulate) L(ocked) N(o reserve). OFF: bytes
 *     anon AT BYTES PROT              private anonymous memory over whatever is there
 *     unmap AT BYTES                  protect AT BYTES PROT
 *     remap AT OLD NEW FLAGS TO       letters m(ay move) f(ixed, to TO) d(ont unmap); where it moves elsewhere, it comes back to TO
 *     msync AT BYTES FLAGS            letters s a i           madvise AT BYTES ADVICE (a number)
 *     mlock AT BYTES [f], munlock AT BYTES (f: on fault)      pages AT BYTES PAGE (remap_file_pages)
 *     load AT COUNT                   a digest                store AT COUNT SEED
 *     move AT AT COUNT                memcpy to the first     look AT N (a digest of each page)
 */
#include "model.h"

static int protection(const char *letters)
{
    return (strchr(letters, 'r') ? PROT_READ : 0) | (strchr(letters, 'w') ? PROT_WRITE : 0)
           | (strchr(letters, 'x') ? PROT_EXEC : 0);
}

static int map_flags(const char *letters)
{
    static const struct { char letter; int flag; } all[] = {
        {'s', MAP_SHARED}, {'v', MAP_SHARED_VALIDATE}, {'p', MAP_PRIVATE}, {'f', MAP_FIXED}, {'n', MAP_FIXED_NOREPLACE},
        {'P', MAP_POPULATE}, {'L', MAP_LOCKED}, {'N', MAP_NORESERVE}};
    int flags = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        flags |= strchr(letters, all[i].letter) ? all[i].flag : 0;
    return flags;
}

/*
 * Which call last gave a page of the arena what splits mappings. A range that several calls made is several mappings, or may be;
 * whether mremap moves those depends on the kernel (6.17 does), so that such a line is not obeyed.
 */
static unsigned made_by[PAGES], calls;

static void stamp(const char *at, size_t length, unsigned call)
{
    for (size_t page = (size_t)(at - ARENA) / PAGE; page < PAGES && ARENA + page * PAGE < at + length; page++)
        made_by[page] = call;
}

/* The same for a call that changes what is mapped there, and maps nothing: what was made by two calls is two mappings still. */
static void restamp(const char *at, size_t length)
{
    unsigned last = 0;
    for (size_t page = (size_t)(at - ARENA) / PAGE; page < PAGES && ARENA + page * PAGE < at + length; page++) {
        calls += made_by[page] != last;
        last = made_by[page];
        made_by[page] = last == 0 ? 0 : calls;
    }
}

static int is_one(const char *at, size_t length)
{
    size_t first = (size_t)(at - ARENA) / PAGE;
    for (size_t page = first; page < PAGES && ARENA + page * PAGE < at + length; page++)
        if (made_by[page] != made_by[first])
            return 0;
    return 1;
}

static void use(const char *at, size_t length)
{
    for (size_t page = (size_t)(at - ARENA) / PAGE; page < PAGES && ARENA + page * PAGE < at + length; page++)
        used[page] = 1;
    stamp(at, length, ++calls);
}

static void say_place(const char *at)
{
    if (at == MAP_FAILED)
        say_result(-1);
    else if (at >= ARENA && at < ARENA + (size_t)PAGES * PAGE)
        say(" at %td", (at - ARENA) / PAGE);
    else
        say(" elsewhere");
}

/*
 * The kernel's mapping keeps the open file description that it was made of, and so the flock and OFD locks of a descriptor that was
 * closed; that is a difference by design (docs/SEMANTICS.md). So the reference maps through a description of its own, which is never
 * closed: that would give the process's record locks up.
 */
static int description_of_its_own(int fd)
{
    static struct {
        struct stat file;
        int mode, fd;
    } kept[64];
    static int count;
    struct stat status;
    char name[32];
    int mode = fcntl(fd, F_GETFL) & O_ACCMODE;
    if (!reference || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
        return fd;
    for (int i = 0; i < count; i++)
        if (kept[i].file.st_ino == status.st_ino && kept[i].file.st_dev == status.st_dev && kept[i].mode == mode)
            return kept[i].fd;
    if (count == 64)
        return fd;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    kept[count].fd = open(name, mode | O_CLOEXEC);
    kept[count].file = status;
    kept[count].mode = mode;
    return kept[count].fd < 0 ? fd : kept[count++].fd;
}

static void map(char **word)
{
    char *at = address(word[1]);
    size_t length = (size_t)number(word[2]);
    int inherit = strcmp(word[0], "anon") == 0;
    char *got = inherit ? mmap(at, length, protection(word[3]), MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
                        : mmap(at, length, protection(word[3]), map_flags(word[4]), description_of_its_own(slot[slot_of(word[5])]),
                               number(word[6]));
    say_place(got);
    if (got == at)
        use(at, length);
    else if (got != MAP_FAILED)
        munmap(got, length);
}

static void remap(char **word)
{
    char *at = address(word[1]), *to = address(word[5]);
    size_t before = (size_t)number(word[2]), after = (size_t)number(word[3]);
    int flags = (strchr(word[4], 'm') ? MREMAP_MAYMOVE : 0) | (strchr(word[4], 'f') ? MREMAP_FIXED : 0)
                | (strchr(word[4], 'd') ? MREMAP_DONTUNMAP : 0);
    if ((after > before || (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0) && !is_one(at, before)) {
        say(" several");
        return;
    }
    char *got = mremap(at, before, after, flags, to);
    say_place(got);
    if (got == MAP_FAILED)
        return;
    if (got < ARENA || got >= ARENA + (size_t)PAGES * PAGE)
        got = mremap(got, after, after, MREMAP_MAYMOVE | MREMAP_FIXED, to), say_place(got);
    if (got == MAP_FAILED)
        return;
    if (got != at && (flags & MREMAP_DONTUNMAP) == 0)
        stamp(at, before, 0);
    else if (after < before)
        stamp(at + after, before - after, 0);
    /* What stays where it is may be several mappings, or reach over the end of the last one. */
    if (got != at || after > before)
        use(got, after);
}

static int sync_flags(const char *letters)
{
    return (strchr(letters, 's') ? MS_SYNC : 0) | (strchr(letters, 'a') ? MS_ASYNC : 0)
           | (strchr(letters, 'i') ? MS_INVALIDATE : 0);
}

/* A touch of bytes one after the other; done says how far it came. */
struct touch {
    volatile char *to;
    const volatile char *from;
    size_t count;
    volatile size_t done;
    volatile uint64_t hash;
};

static void load_bytes(void *argument)
{
    struct touch *touch = argument;
    for (size_t i = 0; i < touch->count; i++) {
        touch->hash = (touch->hash ^ (unsigned char)touch->from[i]) * 0x100000001b3;
        touch->done = i + 1;
    }
}

static void store_bytes(void *argument)
{
    struct touch *touch = argument;
    for (size_t i = 0; i < touch->count; i++) {
        touch->to[i] = touch->from[i];
        touch->done = i + 1;
    }
}

static void say_touch(void (*body)(void *), struct touch *touch)
{
    attempt(body, touch);
    say(" %zu %06x", touch->done, (uint32_t)(touch->hash >> 40));
    say_caught();
}

static void digest_page(void *argument)
{
    struct touch *touch = argument;
    const uint64_t *words = (const uint64_t *)touch->from;
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < PAGE / sizeof *words; i++)
        hash = ((hash ^ words[i]) * 0x100000001b3) ^ (hash >> 29);
    touch->hash = hash;
}

/* What a page shows: a digest, or B(us) or S(egv) and the code. */
static uint32_t look_at(size_t page)
{
    struct touch touch = {.from = ARENA + page * PAGE};
    if (attempt(digest_page, &touch) != 0)
        return (caught.signal == SIGBUS ? 0xb0000000 : 0xa0000000) + (uint32_t)caught.code;
    return (uint32_t)(touch.hash >> 40);
}

static void say_pages(size_t first, size_t end, uint32_t what)
{
    say(first + 1 == end ? " %zu:" : " %zu-%zu:", first, end - 1);
    if (what >> 28 != 0)
        say("%c%u", what >> 28 == 0xb ? 'B' : 'S', what & 0xfffffff);
    else
        say("%06x", what);
}

static void look(size_t from, size_t to, int all)
{
    size_t since = from;
    uint32_t same = 0;
    for (size_t page = from; page <= to && page <= PAGES; page++) {
        int there = page < to && page < PAGES && (all || used[page]);
        uint32_t now = there ? look_at(page) : 0;
        if (since < page && there && now == same)
            continue;
        if (since < page)
            say_pages(since, page, same);
        since = there ? page : page + 1;
        same = now;
    }
}

void look_at_memory(void)
{
    look(0, PAGES, 0);
}

static int on_touches(char **word, int words)
{
    struct touch touch = {.to = address(word[1]), .from = address(word[1])};
    if (words < 3)
        return 0;
    if (strcmp(word[0], "load") == 0) {
        touch.count = (size_t)number(word[2]);
        say_touch(load_bytes, &touch);
    } else if (strcmp(word[0], "store") == 0) {
        touch.count = (size_t)number(word[2]) % BYTES_MAX;
        fill(scratch[0], touch.count, number(word[3]));
        touch.from = scratch[0];
        say_touch(store_bytes, &touch);
    } else if (strcmp(word[0], "move") == 0 && words > 3) {
        touch.from = address(word[2]);
        touch.count = (size_t)number(word[3]);
        say_touch(store_bytes, &touch);
    } else if (strcmp(word[0], "look") == 0) {
        size_t page = (size_t)number(word[1]) % PAGES;
        look(page, page + (size_t)number(word[2]), 1);
    } else
        return 0;
    return 1;
}

int on_memory(char **word, int words)
{
    const char *call = word[0];
    if (words < 3)
        return 0;
    char *at = address(word[1]);
    size_t length = (size_t)number(word[2]);
    if (strcmp(call, "map") == 0 && words > 6)
        map(word);
    else if (strcmp(call, "anon") == 0 && words > 3)
        map(word);
    else if (strcmp(call, "unmap") == 0) {
        say_result(munmap(at, length));
        stamp(at, length, 0);
    } else if (strcmp(call, "protect") == 0 && words > 3) {
        say_result(mprotect(at, length, protection(word[3])));
        restamp(at, length);
    } else if (strcmp(call, "pages") == 0 && words > 3) {
        /* Of several mappings, those with equal flags are one; advice is a flag of the kernel's alone. */
        if (!is_one(at, length)) {
            say(" several");
            return 1;
        }
        say_result(remap_file_pages(at, length, 0, (size_t)number(word[3]), 0));
        restamp(at, length);
    } else if (strcmp(call, "remap") == 0 && words > 5)
        remap(word);
    else if (strcmp(call, "msync") == 0 && words > 3)
        say_result(msync(at, length, sync_flags(word[3])));
    else if (strcmp(call, "mlock") == 0) {
        say_result(mlock2(at, length, words > 3 ? MLOCK_ONFAULT : 0));
        restamp(at, length);
    } else if ((strcmp(call, "madvise") == 0 && words > 3) || strcmp(call, "munlock") == 0) {
        say_result(call[1] == 'a' ? madvise(at, length, (int)number(word[3])) : munlock(at, length));
        restamp(at, length);
    } else
        return on_touches(word, words);
    return 1;
}
