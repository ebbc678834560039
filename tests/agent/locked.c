/* Locks pages of a mapped file that is larger than the page cache may be, and goes over all of it.
 *
 * locked FILE PAGES LOCKED   LOCKED pages of it, from the 10th on; prints how many of them were in the page cache at the end, and how many once
 *                            they were unlocked and all was gone over again
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, FIRST = 10 };

static volatile char *map;
static long pages, count;

static void go_over_all(void)
{
	for (int round = 0; round < 2; round++)
		for (long page = 0; page < pages; page++)
			if (map[page * PAGE] != (char)(page % 100 + 1))
				exit(3);
}

/* mincore(2) tells of the page cache. */
static long here(void)
{
	static unsigned char core[1 << 16];
	long found = 0;
	if (mincore((char *)map + FIRST * PAGE, (size_t)count * PAGE, core) != 0)
		exit(4);
	for (long page = 0; page < count; page++)
		found += core[page] & 1;
	return found;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	int file = open(argv[1], O_RDWR | O_CREAT, 0600);
	pages = atol(argv[2]), count = atol(argv[3]);
	if (file < 0 || ftruncate(file, pages * PAGE) != 0)
		return 2;
	map = mmap(NULL, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (map == MAP_FAILED)
		return 2;
	for (long page = 0; page < pages; page++)
		map[page * PAGE] = (char)(page % 100 + 1);
	if (msync((char *)map, (size_t)pages * PAGE, MS_SYNC) != 0)
		return 2;
	if (mlock((char *)map + FIRST * PAGE, (size_t)count * PAGE) != 0) {
		puts(errno == ENOMEM ? "ENOMEM" : strerror(errno));
		return 0;
	}
	go_over_all();
	long locked = here();
	if (munlock((char *)map + FIRST * PAGE, (size_t)count * PAGE) != 0)
		return 5;
	go_over_all();
	printf("%ld %ld\n", locked, here());
	return 0;
}
