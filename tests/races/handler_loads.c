/*
 * A signal handler that blocks every signal may load a page that is not here; and SIGSEGV that somebody sends to a
 * program that ignores it is ignored.
 *
 *     handler_loads FILE
 */
#include "race.h"
#include <signal.h>

static char *base;
static volatile char got;

static void load(int number)
{
    (void)number;
    got = base[5 * PAGE];
}

int main(int argc, char **argv)
{
    must(argc == 2);
    int fd = open(argv[1], O_RDWR);
    must(fd >= 0);
    base = shared(fd, 0, 64 * PAGE);
    struct sigaction action = {.sa_handler = load};
    sigfillset(&action.sa_mask);
    must(sigaction(SIGUSR1, &action, NULL) == 0 && raise(SIGUSR1) == 0);
    printf("in a handler: %c\n", got);
    must(signal(SIGSEGV, SIG_IGN) != SIG_ERR && kill(getpid(), SIGSEGV) == 0);
    printf("after it: %c\n", base[50 * PAGE]);
    return 0;
}
