/*
 * model: executes a script, one line at a time, and answers each line with one line on what came of it: the result, the
 * errno, the signal and its code, and digests of what is there. On two file systems that behave alike the answers are the
 * same. tests/src/model generates the lines, puts them in order over several of these processes, and compares.
 *
 *     model SOCKET LABEL DIRECTORY [reference]
 *
 * connects to the abstract Unix socket, says its label, and obeys. Lines: those of files.h, memory.h and names.h, and
 *
 *     t LINE             LINE in a thread of its own
 *     fork LABEL         the child connects under that label and goes on by itself
 *     exit, _exit, kill  the end of this process, the last by SIGKILL
 *     reap               waits for a child
 *     check              digests of every mapping, page by page, and of every open file
 */
#include "model.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "files.h"
#include "memory.h"
#include "names.h"

char text[TEXT_MAX];
size_t text_length;
int slot[SLOTS];
unsigned char used[PAGES];
int reference;
static const char *socket_name;
static FILE *driver;

void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int count = vsnprintf(text + text_length, sizeof text - text_length, format, arguments);
    va_end(arguments);
    if (count > 0)
        text_length += (size_t)count;
    if (text_length >= sizeof text)
        text_length = sizeof text - 1;
}

void say_result(long value)
{
    if (value < 0)
        say(" %s", strerrorname_np(errno));
    else
        say(" %ld", value);
}

long number(const char *word)
{
    return word == NULL ? 0 : strtol(word, NULL, 0);
}

int slot_of(const char *word)
{
    return (int)((unsigned long)number(word) % SLOTS);
}

char *address(const char *word)
{
    char *rest = NULL;
    long page = word == NULL ? 0 : strtol(word, &rest, 0);
    long offset = rest != NULL && *rest == '+' ? strtol(rest + 1, NULL, 0) : 0;
    return ARENA + page * PAGE + offset;
}

uint32_t digest(const void *bytes, size_t count)
{
    const unsigned char *at = bytes;
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ at[i]) * 0x100000001b3;
    return (uint32_t)(hash >> 40);
}

void fill(char *bytes, size_t count, long seed)
{
    for (size_t i = 0; i < count; i++)
        bytes[i] = (char)(1 + (unsigned long)(seed * 37 + (long)(i % 251) + (long)(i >> 8) * 3) % 255);
}

_Thread_local struct caught caught;
static _Thread_local sigjmp_buf *jump;

static void on_signal(int signal, siginfo_t *info, void *context)
{
    (void)context;
    if (jump == NULL)
        _exit(99);
    caught = (struct caught){signal, info->si_code, info->si_addr};
    siglongjmp(*jump, 1);
}

int attempt(void (*body)(void *), void *argument)
{
    sigjmp_buf here, *before = jump;
    caught = (struct caught){0};
    /* The handler blocks nothing (SA_NODEFER), so that there is no mask to put back. */
    if (sigsetjmp(here, 0) == 0) {
        jump = &here;
        body(argument);
    }
    jump = before;
    return caught.signal;
}

void say_caught(void)
{
    if (caught.signal == 0)
        return;
    say(" SIG%s/%d", sigabbrev_np(caught.signal), caught.code);
    ptrdiff_t offset = caught.address - ARENA;
    if (offset >= 0 && offset < (ptrdiff_t)PAGES * PAGE)
        say(" at %td+%td", offset / PAGE, offset % PAGE);
    else
        say(" elsewhere");
}

static void connect_as(const char *label)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t length = strlen(socket_name);
    memcpy(to.sun_path + 1, socket_name, length);
    int number = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* Out of the way of the numbers that a script's files get. */
    int high = fcntl(number, F_DUPFD_CLOEXEC, 200);
    close(number);
    if (connect(high, (struct sockaddr *)&to, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)) != 0)
        _exit(97);
    driver = fdopen(high, "r");
    dprintf(high, "%s\n", label);
}

static void obey_lines(void);

static void do_fork(const char *label)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(fileno(driver));
        text_length = 0;
        connect_as(label);
        obey_lines();
        exit(0);
    }
    say_result(child < 0 ? -1 : 0);
}

static void end(const char *how)
{
    if (strcmp(how, "exit") == 0)
        exit(0);
    if (strcmp(how, "_exit") == 0)
        _exit(0);
    kill(getpid(), SIGKILL);
}

static void reap(void)
{
    int status = 0;
    pid_t child = waitpid(-1, &status, 0);
    if (child < 0)
        say_result(-1);
    else
        say(" status %x", status);
}

static void obey(char **word, int words)
{
    if (words == 0)
        return;
    if (strcmp(word[0], "fork") == 0 && words > 1)
        do_fork(word[1]);
    else if (strcmp(word[0], "reap") == 0)
        reap();
    else if (strcmp(word[0], "exit") == 0 || strcmp(word[0], "_exit") == 0 || strcmp(word[0], "kill") == 0)
        end(word[0]);
    else if (strcmp(word[0], "check") == 0) {
        look_at_memory();
        look_at_files();
    } else if (!on_files(word, words) && !on_memory(word, words) && !on_locks(word, words))
        say(" what?");
}

struct task {
    char **word;
    int words;
};

static void *aside(void *argument)
{
    struct task *task = argument;
    obey(task->word, task->words);
    return NULL;
}

static void obey_lines(void)
{
    static char line[4096];
    while (fgets(line, sizeof line, driver) != NULL) {
        char *word[WORDS] = {0}, *rest;
        int words = 0;
        for (char *next = strtok_r(line, " \n", &rest); next != NULL && words < WORDS; next = strtok_r(NULL, " \n", &rest))
            word[words++] = next;
        text_length = 0;
        if (words > 1 && strcmp(word[0], "t") == 0) {
            struct task task = {word + 1, words - 1};
            pthread_t thread;
            if (pthread_create(&thread, NULL, aside, &task) == 0)
                pthread_join(thread, NULL);
            else
                say(" no thread");
        } else
            obey(word, words);
        text[text_length] = 0;
        dprintf(fileno(driver), "%s\n", text[0] == ' ' ? text + 1 : text);
    }
}

int main(int count, char **argument)
{
    if (count < 4 || chdir(argument[3]) != 0) {
        fprintf(stderr, "model SOCKET LABEL DIRECTORY [reference]\n");
        return 2;
    }
    socket_name = argument[1];
    reference = count > 4;
    umask(022);
    for (int i = 0; i < SLOTS; i++)
        slot[i] = -1;
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    connect_as(argument[2]);
    obey_lines();
    return 0;
}
