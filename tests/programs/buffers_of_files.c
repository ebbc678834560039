/* Files and streams read into mapped pages and written from them: another file, the same file, large blocks of stdio, what
   crosses from local memory into the mapping, and what lies behind the end of the file. */
#include "buffers.h"
#include <sys/uio.h>

enum { PAGES = 1800, LARGE = 270 * PAGE };

static struct area area;
static int state;
static char *text;

static void sync_all(void)
{
    need(msync(area.map, area.pages * PAGE, MS_SYNC) == 0, "msync");
}

static void another_file(int file)
{
    need(pwrite(file, text, LARGE, 0) == LARGE && lseek(file, 0, SEEK_SET) == 0, "pwrite");
    char *at = place(&area, state, LARGE);
    check(read(file, at, LARGE) == LARGE && memcmp(at, text, LARGE) == 0 && lseek(file, 0, SEEK_CUR) == LARGE,
          "read 270 pages of another file");
    check(read(file, at, LARGE) == 0, "and then its end");
    at = place(&area, state, 9000);
    check(pread(file, at, 9000, LARGE - 5000) == 5000 && memcmp(at, text + LARGE - 5000, 5000) == 0,
          "pread what is left of it");
    at = place(&area, state, LARGE);
    struct iovec parts[2] = {{at, 5}, {at + 5, LARGE - 5}};
    check(preadv(file, parts, 2, 0) == LARGE && memcmp(at, text, LARGE) == 0, "preadv");
    at[LARGE - 1] = '!';
    sync_all();
    check(pwritev(file, parts, 2, 0) == LARGE && pread(file, text, LARGE, 0) == LARGE && memcmp(at, text, LARGE) == 0,
          "pwritev");
}

static void same_file(int own)
{
    char *from = place(&area, state, 3 * PAGE), *to = place(&area, state, 3 * PAGE);
    char before[3 * PAGE];
    memcpy(before, from, sizeof before);
    sync_all();
    check(pread(own, to, sizeof before, from - area.map) == sizeof before && memcmp(to, before, sizeof before) == 0,
          "pread of the file into its own mapping");
    to = place(&area, state, 3 * PAGE);
    check(pwrite(own, from, sizeof before, to - area.map) == sizeof before && memcmp(to, before, sizeof before) == 0,
          "pwrite to the file from its own mapping");
    need(lseek(own, from - area.map, SEEK_SET) >= 0, "lseek");
    to = place(&area, state, 3 * PAGE);
    check(read(own, to, sizeof before) == sizeof before && memcmp(to, before, sizeof before) == 0
              && lseek(own, 0, SEEK_CUR) == from - area.map + (off_t)sizeof before, "read moves the offset by as much");
}

static void streams(int file)
{
    need(pwrite(file, text, LARGE, 0) == LARGE && lseek(file, 0, SEEK_SET) == 0, "pwrite");
    FILE *stream = fdopen(dup(file), "r+");
    char *at = place(&area, state, LARGE);
    check(fread(at, 3, LARGE / 3, stream) == LARGE / 3 && memcmp(at, text, LARGE) == 0, "fread of a large block");
    check(fread(at, 3, 7, stream) == 0 && feof(stream), "and then the end");
    at[0] = 'f';
    sync_all();
    rewind(stream);
    check(fwrite(at, 1, LARGE, stream) == LARGE && fflush(stream) == 0 && pread(file, text, LARGE, 0) == LARGE
              && memcmp(at, text, LARGE) == 0, "fwrite of a large block");
    at[20000] = 0;
    sync_all();
    rewind(stream);
    check(fputs(at, stream) >= 0 && ftell(stream) == 20000, "fputs of a long string");
    char *line = place(&area, state, 6000);
    rewind(stream);
    check(fgets(line, 6000, stream) == line && memcmp(line, text, 5999) == 0 && line[5999] == 0, "fgets");
    fclose(stream);
    stream = fdopen(dup(file), "r");
    char *buffer = place(&area, state, 8 * PAGE);
    check(setvbuf(stream, buffer, _IOFBF, 8 * PAGE) == 0 && fseek(stream, 100, SEEK_SET) == 0
              && fread(text, 1, 50, stream) == 50 && memcmp(text, at + 100, 50) == 0, "setvbuf with mapped memory");
    fclose(stream);
}

/* Half of the buffer is local memory, half a page of the mapping that was never touched. */
static void crossing(int file, int own)
{
    char *low = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(low != MAP_FAILED, "mmap");
    off_t offset = area.next++ * PAGE;
    need(mmap(low + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, own, offset) == low + PAGE, "mmap");
    check(pread(file, low + PAGE - 2000, 4000, 0) == 4000 && pread(file, text, 4000, 0) == 4000
              && memcmp(low + PAGE - 2000, text, 4000) == 0, "from local memory into the mapping");
    check(low[PAGE + 2000] >= 'A' && low[PAGE + 2000] <= 'Z', "and no byte further");
    munmap(low, 2 * PAGE);
}

static void behind_the_end(int file, int own)
{
    char *end = area.map + PAGES * PAGE;
    check(read(own, end, 10) == -1 && errno == EFAULT, "behind the end of the file: EFAULT");
    check(pread(file, end - 100, 200, 0) == 100 && memcmp(end - 100, text, 100) == 0, "across it: what fits");
    char *locked = map_or_fail(own, PAGE, PROT_READ, MAP_SHARED);
    check(pread(file, locked, 10, 0) == -1 && errno == EFAULT, "into memory that can't be stored into: EFAULT");
    check(pwrite(file, locked, 10, 0) == 10, "out of it");
    munmap(locked, PAGE);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "buffers_of_files");
    if (command.write)
        close(make_pages(path, PAGES));
    if (!command.check)
        return 0;
    text = malloc(LARGE);
    for (int i = 0; i < LARGE; i++)
        text[i] = 'a' + i % 23;
    int own = open_or_fail(path, O_RDWR);
    area = (struct area){map_or_fail(own, (PAGES + 4) * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED), PAGES, 1};
    int file = memfd_create("other", 0);
    need(file >= 0, "memfd_create");
    for (state = UNTOUCHED; state < STATES; state++) {
        another_file(file);
        same_file(own);
        streams(file);
        need(pwrite(file, text, LARGE, 0) == LARGE, "pwrite");
        crossing(file, own);
    }
    behind_the_end(file, own);
    return unlink(path) != 0;
}
