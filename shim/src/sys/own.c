/* The words that each thread has of its own, for sys/own.rs. In the initial-exec model: they lie at a fixed distance from the thread's
   control block, while the general one looks through a vector that libc allocates from the program's heap, and reallocates after dlopen.
   Must not: grow; such room is scarce for a library. */
#include <stdint.h>

struct netmem_own {
    uint64_t before;
    const void *waiting;
    uint32_t depth;
    unsigned char last[256];
};

static __thread struct netmem_own own __attribute__((tls_model("initial-exec")));

struct netmem_own *netmem_own(void) { return &own; }
