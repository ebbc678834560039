/* execl and its kin, dprintf: Rust can't define variadic functions. exports/processes.rs jumps here with the registers as they came; the
   arguments become an array, and the call goes on to the hooks of execv, execvp and execve. Must not: allocate from the
   program's heap (a signal handler or a vfork child may be calling). */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
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

int netmem_hook_vdprintf(int number, int flag, const char *format, va_list list);
int netmem_hook_print(int number, const char *text, size_t length);
char *netmem_hook_allocate(size_t bytes);
void netmem_hook_release(char *at, size_t bytes);

/* vdprintf to a file of ours. */
int netmem_vdprintf(int number, const char *format, va_list list)
{
    char small[1024];
    va_list again;
    va_copy(again, list);
    int length = vsnprintf(small, sizeof small, format, again);
    va_end(again);
    if (length < 0)
        return length;
    size_t bytes = (size_t)length + 1;
    if (bytes <= sizeof small)
        return netmem_hook_print(number, small, (size_t)length);
    char *text = netmem_hook_allocate(bytes);
    if (text == NULL) {
        errno = ENOMEM;
        return -1;
    }
    length = vsnprintf(text, bytes, format, list);
    int result = length < 0 ? length : netmem_hook_print(number, text, bytes - 1);
    netmem_hook_release(text, bytes);
    return result;
}

int netmem_dprintf(int number, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int result = netmem_hook_vdprintf(number, -1, format, list);
    va_end(list);
    return result;
}

int netmem_dprintf_chk(int number, int flag, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int result = netmem_hook_vdprintf(number, flag & INT_MAX, format, list);
    va_end(list);
    return result;
}
