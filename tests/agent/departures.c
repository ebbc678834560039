/* Workers that store, load, read and write in one mapped file, and check every word they ever wrote.
 *
 * departures FILE FIRST COUNT PAGES OPERATIONS [STORES]
 *                                                workers FIRST..FIRST+COUNT, each a thread with a word of its own in every page, that syncs
 *                                                once in so many stores (3)
 * departures FILE make PAGES                     the file, with a word in each page that nobody changes
 * departures FILE check WORKERS PAGES            what they left behind
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, MARK = WORDS - 1, READ_PAGES = 12 };

static int file;
static uint64_t *words;
static size_t pages;
static long operations, sync_every = 3;
static atomic_long wrong;

static void expect(const char *how, size_t page, uint64_t got, uint64_t want)
{
	if (got != want && atomic_fetch_add(&wrong, 1) < 5)
		fprintf(stderr, "%s: page %zu has %llx and not %llx\n", how, page, (unsigned long long)got,
		        (unsigned long long)want);
}

static uint64_t last_word(size_t page, int worker)
{
	return page * 1000 + worker + 1;
}

/* ESTALE once: a process of this host was killed while the server made its commit, which this one has found now. */
static void sync_all(void)
{
	int failed = msync(words, pages * PAGE, MS_SYNC);
	if (failed && errno == ESTALE)
		failed = msync(words, pages * PAGE, MS_SYNC);
	expect("msync", 0, failed ? (uint64_t)errno : 0, 0);
}

/* Reads some pages at once, and looks at this worker's words and the marks. */
static void read_pages(size_t page, int worker, const uint64_t *mine)
{
	uint64_t buffer[READ_PAGES * WORDS];
	size_t count = pages - page < READ_PAGES ? pages - page : READ_PAGES;
	ssize_t got = pread(file, buffer, count * PAGE, (off_t)(page * PAGE));
	expect("pread", page, (uint64_t)got, count * PAGE);
	for (size_t i = 0; i < count && got == (ssize_t)(count * PAGE); i++) {
		expect("a word that was read", page + i, buffer[i * WORDS + worker], mine[page + i]);
		expect("a mark that was read", page + i, buffer[i * WORDS + MARK], page + i + 1);
	}
}

static void *work(void *argument)
{
	int worker = (int)(intptr_t)argument;
	uint64_t *mine = calloc(pages, sizeof *mine), random = 88172645463325252ull + (uint64_t)worker * 7919;
	int stored = 0;
	/* A worker of this number may have been here before. */
	for (size_t page = 0; page < pages; page++)
		mine[page] = words[page * WORDS + worker];
	for (long i = 0; i < operations; i++) {
		random ^= random << 13, random ^= random >> 7, random ^= random << 17;
		size_t page = random / 64 % pages;
		uint64_t *word = &words[page * WORDS + worker];
		switch (random % 8) {
		case 0:
		case 1:
			*(volatile uint64_t *)word = mine[page] = random;
			stored++;
			break;
		case 2:
			mine[page] = random;
			expect("pwrite", page, (uint64_t)pwrite(file, &random, 8, (off_t)((char *)word - (char *)words)), 8);
			stored++;
			break;
		case 3:
			read_pages(page, worker, mine);
			break;
		default:
			expect("a word", page, *(volatile uint64_t *)word, mine[page]);
			expect("a mark", page, *(volatile uint64_t *)&words[page * WORDS + MARK], page + 1);
		}
		if (stored == sync_every) {
			sync_all();
			stored = 0;
		}
		if (i % 100 == 99 && worker == 0) {
			puts("on");
			fflush(stdout);
		}
	}
	for (size_t page = 0; page < pages; page++) {
		expect("a word at the end", page, words[page * WORDS + worker], mine[page]);
		if (page % READ_PAGES == 0)
			read_pages(page, worker, mine);
	}
	for (size_t page = 0; page < pages; page++) {
		words[page * WORDS + worker] = last_word(page, worker);
		if (page % (size_t)sync_every == 0)
			sync_all();
	}
	sync_all();
	free(mine);
	return NULL;
}

static void check(int workers)
{
	for (size_t page = 0; page < pages; page++) {
		expect("a mark", page, words[page * WORDS + MARK], page + 1);
		for (int worker = 0; worker < workers; worker++)
			expect("a last word", page, words[page * WORDS + worker], last_word(page, worker));
	}
}

int main(int argc, char **argv)
{
	int make = argc == 4 && strcmp(argv[2], "make") == 0, look = argc == 5 && strcmp(argv[2], "check") == 0;
	if (!make && !look && argc != 6 && argc != 7)
		return 2;
	file = open(argv[1], O_RDWR | O_CREAT, 0600);
	pages = strtoul(argv[make ? 3 : 4], NULL, 10);
	if (file < 0 || (make && ftruncate(file, (off_t)(pages * PAGE)) != 0))
		return 2;
	words = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (words == MAP_FAILED)
		return 2;
	if (make) {
		for (size_t page = 0; page < pages; page++)
			words[page * WORDS + MARK] = page + 1;
		sync_all();
	} else if (look) {
		check(atoi(argv[3]));
	} else {
		int first = atoi(argv[2]), count = atoi(argv[3]);
		pthread_t threads[64];
		operations = atol(argv[5]);
		sync_every = argc == 7 ? atol(argv[6]) : sync_every;
		for (int i = 0; i < count; i++)
			pthread_create(&threads[i], NULL, work, (void *)(intptr_t)(first + i));
		for (int i = 0; i < count; i++)
			pthread_join(threads[i], NULL);
	}
	printf("%ld wrong\n", atomic_load(&wrong));
	return atomic_load(&wrong) != 0;
}
