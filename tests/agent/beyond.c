/* Stores into every page of a mapped file, and syncs only once it is told to.
 *
 * beyond FILE PAGES make    the file: its number in each page
 * beyond FILE PAGES store   another number in each page; a line; and with the end of its input, all is looked at, synced, and looked at again
 * beyond FILE PAGES old     every page has its first number
 * beyond FILE PAGES new     every page has the other
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8 };

static volatile uint64_t *words;
static size_t pages, wrong;

static void check(uint64_t more)
{
	for (size_t page = 0; page < pages; page++)
		if (words[page * WORDS] != page + 1 + more && wrong++ < 5)
			fprintf(stderr, "page %zu has %llu\n", page, (unsigned long long)words[page * WORDS]);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	int file = open(argv[1], O_RDWR | O_CREAT, 0600), make = strcmp(argv[3], "make") == 0;
	pages = strtoul(argv[2], NULL, 10);
	if (file < 0 || (make && ftruncate(file, (off_t)(pages * PAGE)) != 0))
		return 2;
	words = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (words == MAP_FAILED)
		return 2;
	uint64_t more = strcmp(argv[3], "new") == 0 ? 1000000 : 0;
	if (make || strcmp(argv[3], "store") == 0) {
		more = make ? 0 : 1000000;
		for (size_t page = 0; page < pages; page++)
			words[page * WORDS] = page + 1 + more;
		if (!make) {
			puts("stored");
			fflush(stdout);
			while (getchar() != EOF)
				;
			check(more);
		}
		if (msync((void *)words, pages * PAGE, MS_SYNC) != 0)
			return 2;
	}
	check(more);
	printf("%zu wrong\n", wrong);
	return wrong != 0;
}
