/*
 * A page is installed where it was asked for, and only while that place still shows its region: the neighbours that
 * come with a page of A may arrive when B is mapped at the same address.
 *
 *     address_reused A B PIECES
 *
 * Every page of A begins with the word 1, every page of B with 2; a piece is 64 pages of both.
 */
#include "race.h"

enum { PIECE = 64 * PAGE };

int main(int argc, char **argv)
{
    must(argc == 4);
    int a = open(argv[1], O_RDWR), b = open(argv[2], O_RDWR), wrong = 0, same = 0;
    must(a >= 0 && b >= 0);
    for (off_t piece = 0; piece < atoi(argv[3]); piece++) {
        char *first = shared(a, piece * PIECE, PIECE);
        must(load_word(first) == 1);
        must(munmap(first, PIECE) == 0);
        char *second = shared(b, piece * PIECE, PIECE);
        same += second == first;
        for (int page = 0; page < 64; page++)
            wrong += load_word(second + page * PAGE) != 2;
        must(munmap(second, PIECE) == 0);
    }
    for (off_t page = 0; page < 64 * atoi(argv[3]); page++) {
        uint32_t word = 0;
        must(pread(b, &word, sizeof word, page * PAGE) == sizeof word);
        wrong += word != 2;
    }
    must(same > 0);
    printf("%d wrong\n", wrong);
    return wrong != 0;
}
