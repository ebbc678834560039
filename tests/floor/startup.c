/*
 * What preloading costs a program that uses nothing of it: fork, exec and wait of /bin/true, with and without
 * LD_PRELOAD, in turn.
 *
 *     startup LIBRARY [--count 200] [--program /bin/true] [--cpu N]
 */
#include "floor.h"
#include <sys/wait.h>

static uint64_t run(const char *program, const char *library)
{
    uint64_t begin = now_ns();
    pid_t child = fork();
    if (child == 0) {
        if (library != NULL)
            setenv("LD_PRELOAD", library, 1);
        else
            unsetenv("LD_PRELOAD");
        execl(program, program, (char *)NULL);
        _exit(127);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        fprintf(stderr, "startup: %s failed\n", program);
        exit(1);
    }
    return now_ns() - begin;
}

int main(int argc, char **argv)
{
    size_t count = number(argc, argv, "--count", 200);
    const char *program = option(argc, argv, "--program", "/bin/true");
    uint64_t *with = malloc(count * sizeof *with), *without = malloc(count * sizeof *without);
    if (argc < 2 || argv[1][0] == '-' || count == 0 || with == NULL || without == NULL) {
        fprintf(stderr, "usage: startup LIBRARY [--count N] [--program FILE] [--cpu N]\n");
        return 2;
    }
    if (access(argv[1], R_OK) != 0)
        die(argv[1]); /* the loader would only warn */
    pin(argc, argv);
    fflush(stdout);
    for (int i = 0; i < 5; i++) {
        run(program, NULL);
        run(program, argv[1]);
    }
    for (size_t i = 0; i < count; i++) {
        without[i] = run(program, NULL);
        with[i] = run(program, argv[1]);
    }
    printf("count=%zu\n", count);
    print_latency("without", without, count);
    print_latency("with", with, count);
    printf("extra_p50_ns=%jd\n", (intmax_t)with[count / 2] - (intmax_t)without[count / 2]);
    return 0;
}
