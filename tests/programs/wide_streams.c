/* Wide characters on streams: written, read by the character and the line, put back, and the same bytes as any other program's. */
#include "program.h"
#include <locale.h>
#include <wchar.h>

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "wide_streams");
    need(setlocale(LC_ALL, "C.UTF-8") != NULL, "setlocale");
    if (command.write) {
        FILE *file = fopen(path, "w");
        check(file && fputws(L"gr\u00f6\u00dfer \u2260 \U0001f600\n", file) >= 0 && fputwc(L'\u20ac', file) == L'\u20ac' && putwc(L'\n', file) == L'\n',
              "fputws, fputwc, putwc");
        for (int i = 0; i < 5000; i++)
            need(fputws(L"\u00e4\u00f6\u00fc", file) >= 0, "fputws");
        check(fclose(file) == 0, "and all of it goes");
    }
    if (!command.check)
        return 0;
    static char bytes[64 << 10];
    int fd = open_or_fail(path, O_RDONLY);
    ssize_t length = read(fd, bytes, sizeof bytes);
    const char *start = "gr\u00f6\u00dfer \u2260 \U0001f600\n\u20ac\n";
    check(length == (ssize_t)strlen(start) + 30000 && memcmp(bytes, start, strlen(start)) == 0, "it is the locale's encoding");
    close(fd);
    FILE *file = fopen(path, "r");
    wchar_t line[100];
    check(fgetwc(file) == L'g' && getwc(file) == L'r' && fgetwc(file) == L'\u00f6', "fgetwc, getwc");
    check(ungetwc(L'\u00f6', file) == L'\u00f6' && fgetws(line, 100, file) == line && wcscmp(line, L"\u00f6\u00dfer \u2260 \U0001f600\n") == 0,
          "ungetwc, fgetws");
    check(fgetws(line, 100, file) && wcscmp(line, L"\u20ac\n") == 0, "another line");
    check(fgetws(line, 4, file) && wcscmp(line, L"\u00e4\u00f6\u00fc") == 0, "no more than there is room for");
    int count = 3;
    while (fgetwc(file) != WEOF)
        count++;
    check(count == 15000 && feof(file) && fgetws(line, 100, file) == NULL && ungetwc(WEOF, file) == WEOF, "to the end");
    fclose(file);
    return unlink(path) != 0;
}
