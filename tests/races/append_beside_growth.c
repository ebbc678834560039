/*
 * What is appended is in the commit that comes after it, also if the file grows in that moment because another host made it longer.
 *
 *     append_beside_growth a FILE PLACES    appends, and notes in PLACES where each record went; a thread opens FILE all the time
 *     append_beside_growth g FILE PLACES    makes FILE longer, until PLACES says that everything is appended
 *     append_beside_growth c FILE PLACES    looks for each record
 */
#include "race.h"

enum { RECORD = 1000, RECORDS = 4000, STRIDE = 4 << 20, LONGEST = 400 };

static const char *path, *places;
static volatile int done;

static void *look(void *none)
{
    while (!done) {
        int fd = open(path, O_RDONLY);
        must(fd >= 0 && close(fd) == 0);
    }
    return none;
}

static void fill(char *record, int number)
{
    memset(record, 'a' + number % 26, RECORD);
    memcpy(record, &number, sizeof number);
}

static void append(void)
{
    static off_t at[RECORDS];
    pthread_t other;
    char record[RECORD];
    int fd = open(path, O_RDWR | O_APPEND), list = open(places, O_WRONLY | O_CREAT, 0600);
    must(fd >= 0 && list >= 0 && pthread_create(&other, NULL, look, NULL) == 0);
    for (int number = 0; number < RECORDS; number++) {
        fill(record, number);
        must(write(fd, record, RECORD) == RECORD);
        at[number] = lseek(fd, 0, SEEK_CUR) - RECORD;
        must(number % 16 != 0 || fsync(fd) == 0);
    }
    done = 1;
    must(pthread_join(other, NULL) == 0 && fsync(fd) == 0);
    must(write(list, at, sizeof at) == sizeof at);
}

static void grow(void)
{
    struct stat status;
    for (int round = 1; round <= LONGEST && (stat(places, &status) != 0 || status.st_size == 0); round++) {
        int fd = open(path, O_RDWR);
        must(fd >= 0 && pwrite(fd, "longer", 6, (off_t)round * STRIDE + 77) == 6);
        must(fsync(fd) == 0 && close(fd) == 0);
    }
}

static int lost(void)
{
    static off_t at[RECORDS];
    char record[RECORD], wanted[RECORD];
    int fd = open(path, O_RDONLY), list = open(places, O_RDONLY), lost = 0;
    must(fd >= 0 && list >= 0 && read(list, at, sizeof at) == sizeof at);
    for (int number = 0; number < RECORDS; number++) {
        fill(wanted, number);
        lost += pread(fd, record, RECORD, at[number]) != RECORD || memcmp(record, wanted, RECORD) != 0;
    }
    return lost;
}

int main(int argc, char **argv)
{
    must(argc == 4);
    path = argv[2];
    places = argv[3];
    switch (argv[1][0]) {
    case 'a':
        append();
        break;
    case 'g':
        grow();
        break;
    default:
        printf("%d lost\n", lost());
    }
    return 0;
}
