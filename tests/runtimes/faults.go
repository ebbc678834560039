// A Go program that maps a file through C, and recovers from null pointers in between: Go's runtime has its own SIGSEGV
// handler, and makes its system calls by itself. Usage: faults FILE write|read
package main

/*
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static char *map_file(const char *path, size_t length)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)length) != 0)
        return NULL;
    char *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

static int sync_all(char *at, size_t length) { return msync(at, length, MS_SYNC); }
*/
import "C"

import (
	"fmt"
	"os"
	"sync"
	"unsafe"
)

const page, pages, workers = 4096, 1024, 4

func null(pointer *int) (caught int) {
	defer func() {
		if recover() != nil {
			caught = 1
		}
	}()
	return *pointer
}

func main() {
	path := C.CString(os.Args[1])
	at := C.map_file(path, page*pages)
	if at == nil {
		panic("no mapping")
	}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(at)), page*pages)
	sums, caught := make([]int, workers), make([]int, workers)
	var all sync.WaitGroup
	for worker := 0; worker < workers; worker++ {
		all.Add(1)
		go func(worker int) {
			defer all.Done()
			for i := worker; i < pages; i += workers {
				if os.Args[2] == "write" {
					bytes[i*page+i] = byte(i)
				}
				sums[worker] += int(bytes[i*page+i])
				caught[worker] += null(nil)
			}
		}(worker)
	}
	all.Wait()
	if C.sync_all(at, page*pages) != 0 {
		panic("msync")
	}
	fmt.Println(sums, caught)
}
