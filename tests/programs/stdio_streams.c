/* Streams on files: every mode of fopen, seeking, pushing back, formatted text, named encodings, what is left in a buffer at exit. */
#include "program.h"

#include <wchar.h>

static const char *path;

static int holds(const char *text)
{
    char bytes[256] = "";
    int fd = open_or_fail(path, O_RDONLY);
    ssize_t count = read(fd, bytes, sizeof bytes - 1);
    close(fd);
    return count == (ssize_t)strlen(text) && memcmp(bytes, text, strlen(text)) == 0;
}

static void modes(void)
{
    char line[64];
    FILE *file = fopen(path, "w");
    check(file != NULL && fputs("one\ntwo\n", file) >= 0 && ftell(file) == 8 && holds(""), "w: what is written waits in the buffer");
    check(fflush(file) == 0 && holds("one\ntwo\n"), "until it is flushed");
    check(fprintf(file, "%d %s\n", 3, "three") == 8 && fclose(file) == 0 && holds("one\ntwo\n3 three\n"), "or closed");
    file = fopen(path, "r");
    check(file != NULL && fgets(line, sizeof line, file) != NULL && strcmp(line, "one\n") == 0 && ftell(file) == 4, "r: a line");
    check(fputc('x', file) == EOF && errno == EBADF, "that can't be written");
    clearerr(file);
    check(ungetc('!', file) == '!' && fgetc(file) == '!' && fgetc(file) == 't', "a character pushed back");
    check(fseek(file, -2, SEEK_END) == 0 && fgetc(file) == 'e' && getc(file) == '\n' && getc(file) == EOF && feof(file),
          "fseek from the end, and the end");
    rewind(file);
    check(!feof(file) && fread(line, 4, 3, file) == 3 && memcmp(line, "one\ntwo\n3 th", 12) == 0, "rewind and fread");
    fpos_t at;
    check(fgetpos(file, &at) == 0 && fseeko(file, 0, SEEK_SET) == 0 && fsetpos(file, &at) == 0 && ftello(file) == 12, "fsetpos");
    fclose(file);
    file = fopen(path, "a");
    check(file != NULL && ftell(file) == 16 && fputs("four\n", file) >= 0 && ftell(file) == 21, "a: starts at the end");
    check(fseek(file, 0, SEEK_SET) == 0 && fputs("five\n", file) >= 0 && fclose(file) == 0
              && holds("one\ntwo\n3 three\nfour\nfive\n"), "and writes there, wherever it is");
    file = fopen(path, "a+");
    check(file != NULL && fgets(line, sizeof line, file) != NULL && strcmp(line, "one\n") == 0, "a+: reads from the start");
    check(fseek(file, 0, SEEK_CUR) == 0 && fputs("six\n", file) >= 0 && fclose(file) == 0
              && holds("one\ntwo\n3 three\nfour\nfive\nsix\n"), "and writes at the end");
    file = fopen(path, "r+");
    check(file != NULL && fseek(file, 4, SEEK_SET) == 0 && fputs("TWO", file) >= 0 && fflush(file) == 0 && fgetc(file) == '\n'
              && fclose(file) == 0 && holds("one\nTWO\n3 three\nfour\nfive\nsix\n"), "r+: reads and writes in place");
    file = fopen(path, "w+");
    check(file != NULL && holds("") && fputs("new", file) >= 0 && fseek(file, 1, SEEK_SET) == 0 && fgetc(file) == 'e', "w+: empties");
    fclose(file);
    check(fopen(path, "wx") == NULL && errno == EEXIST, "x: must not be there");
    check(fopen(path, "q") == NULL && errno == EINVAL, "an unknown mode");
    check(fopen(path_in(path, "x"), "r") == NULL && errno == ENOTDIR, "nothing is below a file");
    file = fopen(path, "re");
    check(file != NULL && fcntl(fileno(file), F_GETFD) == FD_CLOEXEC, "e: closed by exec");
    fclose(file);
}

static void descriptors(void)
{
    char bytes[16];
    int fd = open_or_fail(path, O_RDWR);
    check(fdopen(dup(open_or_fail(path, O_RDONLY)), "w") == NULL && errno == EINVAL, "fdopen can't do more than the descriptor");
    FILE *file = fdopen(fd, "r+");
    check(file != NULL && fileno(file) == fd && fgetc(file) == 'n' && lseek(fd, 0, SEEK_CUR) == 3, "a stream reads ahead");
    check(fseek(file, 0, SEEK_CUR) == 0 && lseek(fd, 0, SEEK_CUR) == 1, "and gives back what it did not need");
    check(setvbuf(file, NULL, _IONBF, 0) == 0 && fputc('E', file) == 'E' && holds("nEw"), "without a buffer everything goes at once");
    check(pread(fd, bytes, 16, 0) == 3 && dprintf(fd, "[%s:%05d]", "printed", 42) == 15 && fclose(file) == 0
              && holds("nE[printed:00042]"), "dprintf");
    fd = open_or_fail(path, O_RDWR | O_APPEND);
    static char wide[3000];
    memset(wide, '.', sizeof wide - 1);
    check(dprintf(fd, "%s", wide) == 2999 && lseek(fd, 0, SEEK_CUR) == 17 + 2999, "of more than a little");
    close(fd);
}

static void others(void)
{
    char line[64];
    FILE *file = fopen(path, "w"), *reader = fopen(path, "r");
    need(file != NULL && reader != NULL, "fopen");
    check(fputs("alpha\n", file) >= 0 && fgetc(reader) == EOF && fflush(file) == 0, "another stream sees nothing yet");
    clearerr(reader);
    check(fgets(line, sizeof line, reader) != NULL && strcmp(line, "alpha\n") == 0, "and what was flushed afterwards");
    pid_t child = fork();
    if (child == 0)
        _exit(fputs("beta\n", file) < 0 || fflush(file) != 0);
    check(wait_for(child) == 0 && holds("alpha\nbeta\n"), "a child goes on where its parent was");
    fputs("lost\n", file);
    child = fork();
    if (child == 0)
        _exit(0);
    check(wait_for(child) == 0 && holds("alpha\nbeta\n"), "_exit leaves what is in the buffer");
    fclose(reader);
    check(fclose(file) == 0 && holds("alpha\nbeta\nlost\n"), "and its parent still has it");
    char big[3 * PAGE];
    memset(big, 'b', sizeof big);
    file = fopen(path, "w+");
    check(fwrite(big, 1, sizeof big, file) == sizeof big && fputs("tail", file) >= 0 && fseek(file, 3 * PAGE, SEEK_SET) == 0
              && fgets(line, sizeof line, file) != NULL && strcmp(line, "tail") == 0, "large blocks");
    fclose(file);
}

static void wide(void)
{
    FILE *file = fopen(path, "w");
    check(file != NULL && fputs("gr\xc3\xbcn\n", file) >= 0 && fclose(file) == 0, "encoded characters");
    file = fopen(path, "r,ccs=UTF-8");
    check(file != NULL && fgetwc(file) == L'g' && fgetwc(file) == L'r' && fgetwc(file) == L'\u00fc', "are wide ones in their encoding");
    fclose(file);
    file = fopen(path, "w,ccs=UTF-8");
    check(file != NULL && fputws(L"\u00e9t\u00e9", file) >= 0 && fclose(file) == 0 && holds("\xc3\xa9t\xc3\xa9"), "both ways");
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    path = path_in(command.dir, "stdio_streams");
    const char *end = path_in(command.dir, "stdio_end");
    if (command.write) {
        modes();
        descriptors();
        others();
        wide();
        FILE *file = fopen(end, "w");
        need(file != NULL && fputs("left in the buffer", file) >= 0, "fputs");
    }
    if (command.write && !command.check)
        exit(0); /* `file` is not closed. */
    if (!command.write) {
        char bytes[64];
        FILE *file = fopen(end, "r");
        check(file != NULL && fread(bytes, 1, sizeof bytes, file) == 18 && memcmp(bytes, "left in the buffer", 18) == 0,
              "exit writes what is left in the buffers");
        fclose(file);
        check(holds("\xc3\xa9t\xc3\xa9"), "what was written through a stream is kept");
    }
    return unlink(path) != 0 || unlink(end) != 0;
}
