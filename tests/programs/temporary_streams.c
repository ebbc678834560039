/* tmpfile: a file without a name, also where TMPDIR is DIR; its stream, its descriptor and a mapping of it show the same. */
#include "program.h"

static void use(const char *when)
{
    FILE *file = tmpfile();
    need(file != NULL, "tmpfile");
    struct stat stat;
    check(fstat(fileno(file), &stat) == 0 && stat.st_nlink == 0 && stat.st_size == 0 && S_ISREG(stat.st_mode), when);
    check(fprintf(file, "%s %d\n", "a line", 42) == 10 && fseek(file, 3 * PAGE, SEEK_SET) == 0 && fputs("behind", file) >= 0 && fflush(file) == 0,
          "it is written");
    char line[100] = "";
    int number = 0;
    rewind(file);
    check(fgets(line, sizeof line, file) && strcmp(line, "a line 42\n") == 0, "read");
    check(fseek(file, 0, SEEK_SET) == 0 && fscanf(file, "a line %d", &number) == 1 && number == 42, "and parsed");
    check(fstat(fileno(file), &stat) == 0 && stat.st_size == 3 * PAGE + 6, "it has its size");
    char *map = map_or_fail(fileno(file), 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    check(memcmp(map + 3 * PAGE, "behind", 6) == 0 && all(map + PAGE, 2 * PAGE, 0), "a mapping shows it");
    memcpy(map + PAGE, "stored", 6);
    check(fseek(file, PAGE, SEEK_SET) == 0 && fread(line, 1, 6, file) == 6 && memcmp(line, "stored", 6) == 0, "and what it stores is read");
    check(fclose(file) == 0 && memcmp(map + PAGE, "stored", 6) == 0, "the mapping outlives the stream");
    munmap(map, 4 * PAGE);
}

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    if (!command.check)
        return 0;
    need(setenv("TMPDIR", command.dir, 1) == 0, "setenv");
    use("tmpfile, with TMPDIR");
    use("and another");
    need(unsetenv("TMPDIR") == 0, "unsetenv");
    use("tmpfile, without TMPDIR");
    return 0;
}
