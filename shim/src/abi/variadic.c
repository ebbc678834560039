/* execl, execlp and execle: Rust can't define variadic functions. exports/processes.rs jumps here with the registers as they came; the
   arguments become an array, and the call goes on to the hooks of execv, execvp and execve. Must not: allocate from the
   program's heap (a signal handler or a vfork child may be calling). */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

/* Arguments at the most; the kernel's own limit is on their bytes. */
enum { ARGUMENTS_MAX = 8192 };

#define COLLECT(first)                                                                                                       \
    va_list list, again;                                                                                                     \
    size_t count = 1;                                                                                                        \
    va_start(list, first);                                                                                                   \
    va_copy(again, list);                                                                                                    \
    while (va_arg(again, char *) != NULL)                                                                                    \
        count++;                                                                                                             \
    va_end(again);                                                                                                           \
    if (count > ARGUMENTS_MAX) {                                                                                             \
        va_end(list);                                                                                                        \
        errno = E2BIG;                                                                                                       \
        return -1;                                                                                                           \
    }                                                                                                                        \
    char *arguments[count + 1];                                                                                              \
    arguments[0] = (char *)(first);                                                                                          \
    for (size_t i = 1; i <= count; i++)                                                                                      \
        arguments[i] = va_arg(list, char *)

int netmem_hook_execv(const char *path, char *const arguments[]);
int netmem_hook_execvp(const char *file, char *const arguments[]);
int netmem_hook_execve(const char *path, char *const arguments[], char *const environment[]);

int netmem_execl(const char *path, const char *first, ...)
{
    COLLECT(first);
    va_end(list);
    return netmem_hook_execv(path, arguments);
}

int netmem_execlp(const char *file, const char *first, ...)
{
    COLLECT(first);
    va_end(list);
    return netmem_hook_execvp(file, arguments);
}

int netmem_execle(const char *path, const char *first, ...)
{
    COLLECT(first);
    char *const *environment = va_arg(list, char *const *);
    va_end(list);
    return netmem_hook_execve(path, arguments, environment);
}
