/* What the model's interpreter is made of: the arena that all mappings lie in, touches that may end in a signal, digests. */
#ifndef MODEL_H
#define MODEL_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    /* Pages of the arena. Every address a script names lies in it. */
    PAGES = 1024,
    SLOTS = 12,
    WORDS = 10,
    BYTES_MAX = 1 << 20,
    TEXT_MAX = 1 << 16,
};

/* Far below where the kernel puts mappings whose place nobody chose, so that nothing but scripts maps here. */
#define ARENA ((char *)0x100000000000)

/* The answer to the line that is being obeyed. */
extern char text[TEXT_MAX];
extern size_t text_length;
/* Descriptors by slot; -1: closed. */
extern int slot[SLOTS];
/* Arena pages that ever were in a mapping: what a look at the whole state looks at. */
extern unsigned char used[PAGES];
/* Whether this is the reference, which is made to keep POSIX's rule about what lies behind the end of a file. */
extern int reference;

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The value, or the errno's name. */
void say_result(long value);
long number(const char *word);
int slot_of(const char *word);
/* "PAGE" or "PAGE+OFFSET" of the arena. */
char *address(const char *word);
uint32_t digest(const void *bytes, size_t count);
/* Bytes that are never zero, another pattern for each seed. */
void fill(char *bytes, size_t count, long seed);

/* Runs body(argument); 0, or the signal that ended it, whose code and address are then in caught. */
int attempt(void (*body)(void *), void *argument);
struct caught {
    int signal, code;
    char *address;
};
extern _Thread_local struct caught caught;
void say_caught(void);

/* Each returns 0 if the line is none of its own. */
int on_files(char **word, int words);
int on_memory(char **word, int words);
void look_at_files(void);
void look_at_memory(void);

#endif
