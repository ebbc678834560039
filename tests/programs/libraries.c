/* What asks libc itself for a function (an FFI does), and a library that was loaded to bind to libc first, find the same files. */
#include "program.h"

#include <dlfcn.h>

typedef void *map_function(void *, size_t, int, int, int, off_t);
typedef int open_function(const char *, int, ...);
typedef ssize_t read_function(int, void *, size_t, off_t);

int main(int argc, char **argv)
{
    struct command command = command_line(argc, argv);
    const char *path = path_in(command.dir, "libraries"), *packed = path_in(command.dir, "libraries.gz");
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_LOCAL), *gzip = dlopen("libz.so.1", RTLD_NOW | RTLD_DEEPBIND);
    check(libc != NULL && gzip != NULL, "libc by its own name, zlib with RTLD_DEEPBIND");
    open_function *libcs_open = (open_function *)dlsym(libc, "open");
    map_function *libcs_map = (map_function *)dlsym(libc, "mmap");
    read_function *libcs_read = (read_function *)dlsym(libc, "pread");
    int (*libcs_sync)(void *, size_t, int) = (int (*)(void *, size_t, int))dlsym(libc, "msync");
    void *(*pack)(const char *, const char *) = (void *(*)(const char *, const char *))dlsym(gzip, "gzopen");
    int (*put)(void *, const void *, unsigned) = (int (*)(void *, const void *, unsigned))dlsym(gzip, "gzwrite");
    int (*get)(void *, void *, unsigned) = (int (*)(void *, void *, unsigned))dlsym(gzip, "gzread");
    int (*done)(void *) = (int (*)(void *))dlsym(gzip, "gzclose");
    check(libcs_open && libcs_map && libcs_read && libcs_sync && pack && put && get && done && dlerror() == NULL, "their functions");
    check(dlsym(libc, "no_such_name") == NULL && dlerror() != NULL && dlerror() == NULL, "a name that is not there, and its error");
    check(dlsym(libc, "malloc") == dlsym(RTLD_DEFAULT, "malloc"), "what nobody stands before is libc's own");
    check(dlsym(libc, "mmap") == dlsym(RTLD_DEFAULT, "mmap"), "libc's mmap is the one that the program calls");
    if (command.write) {
        int fd = libcs_open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        check(fd >= 0 && ftruncate(fd, 4 * PAGE) == 0, "a file by libc's open");
        char *at = libcs_map(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        check(at != MAP_FAILED, "a mapping by libc's mmap");
        memset(at, 'x', 3 * PAGE);
        check(libcs_sync(at, 4 * PAGE, MS_SYNC) == 0, "synced by libc's msync");
        void *file = pack(packed, "wb");
        check(file != NULL && put(file, "packed text", 11) == 11 && done(file) == 0, "zlib writes a file");
    }
    if (command.check) {
        int fd = open(path, O_RDWR);
        char *at = libcs_map(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), bytes[2];
        check(at != MAP_FAILED && at[0] == 'x' && at[3 * PAGE - 1] == 'x' && at[3 * PAGE] == 0, "the mapping shows the file");
        check(libcs_read(fd, bytes, 2, 2 * PAGE) == 2 && bytes[1] == 'x', "libc's pread reads it");
        char text[16] = "";
        void *file = pack(packed, "rb");
        check(file != NULL && get(file, text, 11) == 11 && strcmp(text, "packed text") == 0 && done(file) == 0, "zlib reads its file");
        check(unlink(path) == 0 && unlink(packed) == 0, "removed");
    }
    return 0;
}
