/* Every way to end: what was stored is kept, also what handlers of the end stored, and none of them hangs. */
#include "program.h"
#include <pthread.h>
#include <sys/syscall.h>

static const char *ways[] = {"return",      "exit",          "_exit",       "_Exit",       "quick_exit",
                             "atexit",      "destructor",    "main-thread", "last-thread", "thread-exits",
                             "forked-exit", "forked-return", "stdio",       "exec",          "handler",
                             "handler-quick"};
enum { WAYS = sizeof ways / sizeof *ways };

static char *map;
static pthread_t main_thread;

static void store(void) { strcpy(map + 3 * PAGE, "stored"); }
static void store_more(void) { strcpy(map + 5 * PAGE, "more"); }
static void store_last(void) { strcpy(map + 5 * PAGE + 4, " last"); }

static int with_destructor;
__attribute__((destructor)) static void at_the_end(void)
{
    if (with_destructor)
        store_more();
}

static void *ends_after_main(void *unused)
{
    (void)unused;
    pthread_join(main_thread, NULL);
    store_more();
    return NULL;
}

static void on_term(int signal)
{
    (void)signal;
    store_more();
    _exit(0);
}

static void on_term_quick(int signal)
{
    (void)signal;
    store_more();
    quick_exit(0);
}

static void *exits(void *unused)
{
    (void)unused;
    store_more();
    exit(0);
}

static pthread_t thread_of(void *(*body)(void *))
{
    pthread_t thread;
    need(pthread_create(&thread, NULL, body, NULL) == 0, "pthread_create");
    return thread;
}

/* Ends this process in a way of which main is not told. */
static void end_by(const char *way, const char *file)
{
    if (strcmp(way, "exit") == 0)
        exit(0);
    if (strcmp(way, "_exit") == 0)
        _exit(0);
    if (strcmp(way, "_Exit") == 0)
        _Exit(0);
    if (strcmp(way, "quick_exit") == 0) {
        at_quick_exit(store_last);
        at_quick_exit(store_more);
        quick_exit(0);
    }
    if (strcmp(way, "atexit") == 0)
        atexit(store_last), atexit(store_more);
    if (strcmp(way, "destructor") == 0)
        with_destructor = 1;
    main_thread = pthread_self();
    if (strcmp(way, "main-thread") == 0) {
        atexit(store_more);
        pthread_exit(NULL);
    }
    if (strcmp(way, "last-thread") == 0) {
        pthread_detach(thread_of(ends_after_main));
        pthread_exit(NULL);
    }
    if (strcmp(way, "thread-exits") == 0) {
        thread_of(exits);
        for (;;)
            pause();
    }
    if (strncmp(way, "forked", 6) == 0) {
        pid_t child = fork();
        if (child == 0) {
            store_more();
            if (way[7] == 'e')
                _exit(0);
            return;
        }
        need(wait_for(child) == 0, "a child");
    }
    if (strcmp(way, "stdio") == 0) {
        FILE *stream = fopen(file, "r+");
        need(stream != NULL && fseek(stream, 5 * PAGE, SEEK_SET) == 0 && fputs("more", stream) >= 0, "stdio");
    }
    if (strncmp(way, "handler", 7) == 0) {
        signal(SIGTERM, way[7] == '-' ? on_term_quick : on_term);
        kill(getpid(), SIGTERM);
        _exit(98);
    }
    if (strcmp(way, "exec") == 0)
        execl("/bin/true", "true", (char *)NULL);
}

static int one(const char *way, const char *file)
{
    int fd = open_or_fail(file, O_RDWR);
    map = map_or_fail(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    close(fd);
    store();
    end_by(way, file);
    return 0;
}

/* What each adds to "stored". */
static const char *more(const char *way)
{
    if (strcmp(way, "quick_exit") == 0 || strcmp(way, "atexit") == 0)
        return "more last";
    int adds = strstr(way, "thread") || strncmp(way, "forked", 6) == 0 || strcmp(way, "destructor") == 0 ||
               strcmp(way, "stdio") == 0 || strncmp(way, "handler", 7) == 0;
    return adds ? "more" : "FFFF";
}

int main(int argc, char **argv)
{
    if (argc == 4)
        return one(argv[2], argv[3]);
    struct command command = command_line(argc, argv);
    char name[64], sentence[128];
    for (int i = 0; i < WAYS; i++) {
        snprintf(name, sizeof name, "exit_ways_%d", i);
        const char *path = path_in(command.dir, name);
        if (command.write) {
            close(make_pages(path, 8));
            pid_t child = fork();
            if (child == 0) {
                alarm(20);
                execl("/proc/self/exe", "exit_ways", "by", ways[i], path, (char *)NULL);
                _exit(99);
            }
            snprintf(sentence, sizeof sentence, "%s: the process ends", ways[i]);
            check(wait_for(child) == 0, sentence);
        }
        if (command.check) {
            char page[PAGE];
            int fd = open_or_fail(path, O_RDONLY);
            snprintf(sentence, sizeof sentence, "%s: what was stored is there", ways[i]);
            int first = pread(fd, page, PAGE, 3 * PAGE) == PAGE && strcmp(page, "stored") == 0;
            const char *wanted = more(ways[i]);
            check(first && pread(fd, page, PAGE, 5 * PAGE) == PAGE && strncmp(page, wanted, strlen(wanted)) == 0, sentence);
            close(fd);
            need(unlink(path) == 0, "unlink");
        }
    }
    return 0;
}
