/*
 * netmem.h - memory that lives on another machine, for programs that want to say when.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * This header is the manual. It is C99 and later, and C++11 and later; 64-bit Linux.
 *
 *
 * OVERVIEW
 *
 * netmem-server keeps pages. libnetmem.so makes a file under /netmem/ live on that server: a page is
 * fetched when it is first touched, and what was written goes back, all of it or none of it, when the
 * program says msync. Programs need no change for that:
 *
 *     netmem run -- ./program          runs ./program with libnetmem.so preloaded
 *
 * This header is for programs that want more than open, mmap and msync can say: a commit of a whole
 * region whatever mapped it, or of several regions at once, a commit that refuses to merge, the newest data
 * now, pages brought in ahead, counters. Link with -lnetmem. The functions are ordinary symbols of the library: where it is absent at
 * link time that is a link error, where it is absent at run time the loader refuses to start the program.
 * A program that must also run without the library uses the two marks below instead, which need nothing
 * but this header.
 *
 *     int fd = netmem_open("inventory", O_RDWR | O_CREAT, 0600);
 *     netmem_resize(fd, 1 << 20);
 *     uint64_t *count = netmem_map(fd, NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
 *     count[0] += 1;                                   at once visible to all processes of this host
 *     if (netmem_commit(fd, 0, NULL) != 0)             visible to all hosts; durable if the store is
 *         fprintf(stderr, "%s\n", netmem_last_error());
 *     netmem_unmap(count, 1 << 20);
 *     close(fd);
 *
 * A descriptor from netmem_open and one from open("/netmem/NAME") are the same thing, and so are mappings
 * from netmem_map and from mmap: every function here takes either.
 *
 *
 * WORDS
 *
 *   region   a named, sparse, resizable array of pages on the server; what a file under /netmem/ is
 *   page     4096 bytes, the unit of fetching and of storage
 *   commit   a set of pages, and possibly a new size, that becomes visible all at once
 *   epoch    the number of a region's newest commit; it only grows
 *   view     the epoch at which this host sees a region; all its processes share it
 *
 *
 * WHAT A PROGRAM CAN RELY ON
 *
 *   event                            what it sees
 *   -------------------------------  -----------------------------------------------------------------
 *   load from an absent page         waits for the page. Never zeros that are not the data
 *   store                            at once visible to every mapping, descriptor and process of this
 *                                    host, as on a local file
 *   msync(MS_SYNC), fsync,           0 when everything stored in the region before the call is one
 *   fdatasync, netmem_sync,          commit on the server, durable if the store is. Otherwise -1 and
 *   netmem_commit                    the pages are still dirty: nothing is lost, the next call tries
 *                                    again
 *   msync(MS_ASYNC)                  the same, in the background; a failure is reported by the next sync
 *   opening, msync(MS_INVALIDATE),   from here on loads see the newest commit; this host's uncommitted
 *   taking a lock, netmem_refresh    stores stay
 *   last close of the region in a    what is dirty is committed first. munmap alone only notes what
 *   process, exit, exec              was dirty
 *   two hosts change different       both survive, byte by byte: two halves of one integer that two
 *   bytes of one page                hosts wrote can meet. NETMEM_STRICT refuses instead
 *   fork                             the child sees what the parent saw; shared mappings stay shared,
 *                                    private ones are copied on write
 *   MAP_PRIVATE                      shows the file, this host's stores included, until a page is
 *                                    written; never written back
 *   the server is away               loads and syncs wait while the library reconnects, up to
 *                                    NETMEM_TIMEOUT_MS (0: for ever); then a load gets SIGBUS and a
 *                                    sync EIO; when the server is back, so are they
 *   the server crashes               every acknowledged commit is there afterwards, whole (durable
 *                                    store); none is there in part
 *   the program is killed            the server holds the last commit, whole. What was stored since is
 *                                    committed by the host's other processes that hold the region, or
 *                                    dropped with the last of them
 *   access beyond the end            SIGBUS, as on a file
 *
 *
 * ERRORS
 *
 * A function that returns int gives 0, or -1 with errno set, and netmem_last_error() then says in words
 * what happened. A call that succeeds leaves errno as it was. Besides the ones that each function lists:
 *
 *   EIO         the server could not be reached in NETMEM_TIMEOUT_MS, its store failed, or it
 *               answered what no netmem server answers
 *   ENOMEM      no memory for the library's own tables
 *   EOPNOTSUPP  NETMEM_DISABLE=1, or the server is too old for this request
 *
 * Text for people comes from netmem_last_error(); decide by errno.
 *
 *
 * THREADS AND SIGNALS
 *
 * Every function may be called by any thread at any time, for the same region too. None of them is
 * async-signal-safe, except that loads and stores in mappings are as safe in a handler as elsewhere. None
 * is a cancellation point. A child after fork may call them all; a child after vfork none.
 */
#ifndef NETMEM_H
#define NETMEM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>

#if !defined(__linux__) || !defined(__LP64__)
#error "netmem needs 64-bit Linux"
#endif

#ifdef __cplusplus
extern "C" {
#endif


/* ---- Version ---------------------------------------------------------------------------------------- */

/* The version of this header. A library with the same major number has all that is declared here if its
 * minor number is at least this one. */
#define NETMEM_VERSION_MAJOR 0
#define NETMEM_VERSION_MINOR 1
#define NETMEM_VERSION_PATCH 0

/*
 * The version of the library that is loaded, "MAJOR.MINOR.PATCH". Static text, never NULL. Never fails.
 */
const char *netmem_version(void);


/* ---- Marks that work without the library ------------------------------------------------------------ */

/*
 * A flag for mmap: together with MAP_ANONYMOUS and either MAP_SHARED or MAP_PRIVATE it makes an unnamed
 * region, which ends with its last mapping. fork shares or copies it as it does any anonymous mapping.
 *
 *     mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NETMEM, -1, 0)
 *
 * The kernel ignores the bit: it lies in the field that holds the size of a huge page (bits 26 to 31),
 * which means something only together with MAP_HUGETLB. So without the library the program gets local
 * memory and runs. Not together with MAP_HUGETLB, then; and not with MAP_SHARED_VALIDATE, which the kernel
 * refuses for anonymous memory (EINVAL).
 */
#define MAP_NETMEM 0x40000000

/*
 * A descriptor number that stands for the region named by the environment variable NETMEM_REGION, for
 * programs that take a descriptor from their configuration. mmap and netmem_map take it, nothing else.
 *
 *     mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, NETMEM_FD, offset)
 *
 * It is no valid descriptor: without the library, or without NETMEM_REGION, mmap fails with EBADF.
 */
#define NETMEM_FD (-7117)


/* ---- Regions ---------------------------------------------------------------------------------------- */

/*
 * Opens the region `name` and moves this host's view of it to the newest commit.
 *
 *   name    relative to NETMEM_PREFIX, without a leading '/'. 1 to 1024 bytes, components of 1 to 255 bytes
 *           separated by single '/', none of them "." or ".."; the directories must exist (mkdir(2) makes
 *           them). "a/b" here is "/netmem/a/b" for open(2)
 *   flags   as for open(2): O_RDONLY, O_WRONLY or O_RDWR; O_CREAT, O_EXCL, O_TRUNC, O_CLOEXEC, O_SYNC, ...
 *   mode    permissions of a region that is created, less the umask; ignored without O_CREAT
 *
 * Returns a descriptor, or -1. The descriptor is an ordinary one: read, write, fstat, dup, fcntl locks and
 * sendmsg work on it, and close(2) closes it. The last close in a process commits what is dirty, and close
 * then reports what went wrong.
 *
 * Errors: those of open(2), and
 *   EINVAL        the name breaks a rule above
 *   ENAMETOOLONG  the name or a component of it is too long
 *   ENOENT        there is no such region and no O_CREAT, or a directory is missing
 *   EEXIST        O_CREAT | O_EXCL and it exists
 *   EISDIR        it is a directory and writing was asked for
 */
int netmem_open(const char *name, int flags, mode_t mode);

/*
 * The number of bytes of the region, in *size: the size that this host sees, uncommitted changes included.
 *
 * Errors: EBADF (fd is no descriptor of a region), EINVAL (size is NULL)
 */
int netmem_size(int fd, uint64_t *size);

/*
 * Makes the region `size` bytes long, 0 to 2^44, as ftruncate does: what is cut off is gone, what is added
 * reads as zeros. At once visible on this host; part of the next commit. Mappings do not grow with it: map
 * again.
 *
 * Errors: EBADF (fd is no descriptor of a region), EINVAL (fd is not open for writing), EFBIG (more than
 * the server allows)
 */
int netmem_resize(int fd, uint64_t size);


/* ---- Mappings --------------------------------------------------------------------------------------- */

/*
 * Maps `length` bytes of the region from `offset`. The same as mmap(2), but it fails with EBADF when fd is
 * not a region, where mmap would map whatever it is.
 *
 *   fd      a descriptor of a region, or NETMEM_FD
 *   addr    NULL, a hint, or with MAP_FIXED the address: a multiple of 4096
 *   length  bytes, at least 1; rounded up to whole pages
 *   prot    PROT_NONE, or PROT_READ and PROT_WRITE
 *   flags   MAP_SHARED or MAP_PRIVATE, and optionally MAP_FIXED or MAP_FIXED_NOREPLACE
 *   offset  bytes, a multiple of 4096
 *
 * Returns the address, or MAP_FAILED with errno set. No page is fetched before it is touched. The mapping
 * stays when fd is closed. A load or store beyond the region's end gets SIGBUS.
 *
 * Errors: those of mmap(2), and
 *   EBADF   fd is no region
 *   EACCES  fd is not open for reading, or MAP_SHARED with PROT_WRITE and fd is not open for writing
 *   EINVAL  length 0, addr or offset not a multiple of 4096, neither MAP_SHARED nor MAP_PRIVATE
 */
void *netmem_map(int fd, void *addr, size_t length, int prot, int flags, off_t offset);

/*
 * Removes the mapping of [addr, addr + length), as munmap(2), which does as well. Nothing is sent: what was
 * stored stays in the region on this host, dirty, and is part of its next commit.
 *
 *   addr    a multiple of 4096, not necessarily the start of a mapping
 *   length  bytes, at least 1; rounded up to whole pages
 *
 * Errors: EINVAL (addr unaligned, length 0, or no mapping of ours in the range: then nothing was removed)
 */
int netmem_unmap(void *addr, size_t length);

/*
 * Commits, or refreshes, what is mapped in [addr, addr + length), as msync(2), which does as well.
 *
 *   addr    a multiple of 4096
 *   length  bytes; rounded up to whole pages
 *   flags   MS_SYNC: returns when all that was stored in the range before the call is one commit. The commit
 *           holds the other dirty pages of the same region too: it is never less than what was asked for.
 *           MS_ASYNC: the same in the background, a failure is reported by the next sync.
 *           MS_INVALIDATE, alone or with either: afterwards loads see the newest commit, this host's
 *           uncommitted stores kept.
 *           MS_SYNC and MS_ASYNC exclude each other.
 *
 * A range over several regions makes one commit for each; netmem_commit_together makes one of all.
 *
 * Errors:
 *   EIO     not committed; the pages are still dirty and the next call tries again
 *   EINVAL  addr unaligned, or unknown or contradictory flags
 *   ENOMEM  part of the range is not mapped
 *   ENOSPC  the server's store, or its limit for a region, is full; still dirty
 */
int netmem_sync(void *addr, size_t length, int flags);


/* ---- Commits and views ------------------------------------------------------------------------------ */

/*
 * For netmem_commit: if another host has changed one of the pages that this commit holds since this host's
 * view, commit nothing and fail with ESTALE. Without it the two are merged byte by byte, and a byte that
 * both changed goes to the later commit.
 */
#define NETMEM_STRICT 0x1u

/*
 * For netmem_commit: what is committed is what the region was at one instant between the call and its
 * return. Without it a store that happens during the call is in the commit or in the next one, each page for
 * itself. Everybody who stores into the region, in all processes of this host, is held for as long as its
 * dirty pages are copied (hold_p50_ns in the statistics says how long).
 *
 * Every process of the host that uses the region must have NETMEM_SNAPSHOT=1 in its environment (netmem run
 * --snapshot): so that its stores can be held, it learns of each page's first store between two commits,
 * which costs some microseconds a page. Not held are system calls that go past the library, and pages with
 * robust mutexes that are held or with signal stacks, which the kernel must be able to store into.
 */
#define NETMEM_SNAPSHOT 0x2u

/*
 * Commits everything that was stored in the region before the call, atomically: all mappings and
 * descriptors of all processes of this host, holes punched and the size included. It waits until the
 * server has it, durably if its store is. A commit of nothing is none: the epoch stays.
 *
 *   fd     a descriptor of a region, opened in any mode
 *   flags  0, or NETMEM_STRICT and NETMEM_SNAPSHOT, or one of them
 *   epoch  NULL, or where the epoch goes at which these stores are visible; set only when 0 is returned
 *
 * The host's view moves to that epoch: commits of other hosts before it are seen afterwards.
 * A store that happens during the call is in this commit or in the next one.
 *
 * Errors; the pages are still dirty after each of them:
 *   EBADF   fd is no descriptor of a region
 *   EINVAL  unknown flags
 *   EIO     not acknowledged in time. Calling again is harmless even if the server had it: a commit is known
 *           by its identity and happens once
 *   ENOSPC  the server's store, or its limit for a region, is full
 *   ESTALE  NETMEM_STRICT and another host changed one of the pages: netmem_refresh, look, and try again;
 *           or the view was given up by the server after this host's absence, and is refreshed by now
 *   EOPNOTSUPP  NETMEM_SNAPSHOT, and a process of this host that uses the region can't be held
 *   EBUSY   NETMEM_SNAPSHOT, and a process did not stop its stores within a second (it is stopped itself)
 */
int netmem_commit(int fd, unsigned flags, uint64_t *epoch);

/*
 * Commits everything that was stored in several regions before the call, as one commit: after it all of
 * them have it, or none, to every reader and after any crash.
 *
 *   fds     descriptors of regions, opened in any mode; two of the same region count once
 *   count   how many, at least 1; of 64 regions at the most
 *   flags   0, or NETMEM_STRICT: another host's change to a page of any of the regions fails all of it; and
 *           NETMEM_SNAPSHOT: all of them at the same instant
 *   epochs  NULL, or room for `count` epochs, each the one at which that region's stores are visible; set
 *           only when 0 is returned
 *
 * Each region moves to its epoch as with netmem_commit. One that nothing was stored in keeps its own.
 *
 * Errors: those of netmem_commit; every page is still dirty after each of them. And
 *   EINVAL  count is 0, or fds is NULL
 *   E2BIG   more than 64 regions
 *   EOPNOTSUPP  the server is older than this function
 */
int netmem_commit_together(const int *fds, size_t count, unsigned flags, uint64_t *epochs);

/*
 * Moves this host's view of the region to the newest commit: from here on loads, in all processes of this
 * host, see it. Uncommitted stores of this host stay. In pages that are here only the bytes that differ are
 * changed; other threads may see some of them changed before the call returns.
 *
 *   fd     a descriptor of a region, opened in any mode
 *   epoch  NULL, or where the number of that commit goes; set only when 0 is returned
 *
 * Errors: EBADF (fd is no descriptor of a region), EIO (the server is away: the view has not moved)
 */
int netmem_refresh(int fd, uint64_t *epoch);

/*
 * Brings in the pages of [offset, offset + length), many with one request, and returns when they
 * are here: touching them later costs no round trip. A fault of another thread overtakes it.
 *
 *   fd      a descriptor of a region, opened in any mode
 *   offset  bytes, at least 0
 *   length  bytes; 0: to the region's end. What lies beyond the end is ignored
 *
 * Errors: EBADF (fd is no descriptor of a region), EINVAL (offset negative), EIO
 */
int netmem_prefetch(int fd, off_t offset, size_t length);


/* ---- What happens inside ---------------------------------------------------------------------------- */

/*
 * Counters of this process since it started (a child starts with its parent's at the fork). Fields are
 * added at the end only, and never change their meaning.
 */
struct netmem_stats {
    uint64_t faults;            /* page faults that the library served */
    uint64_t pages_fetched;     /* pages that came from the server, prefetched ones included */
    uint64_t zero_pages_filled; /* pages known to be zeros, filled without a transfer */
    uint64_t pages_committed;   /* pages sent in acknowledged commits */
    uint64_t commits;           /* acknowledged commits that held something */
    uint64_t bytes_received;    /* bytes from the server, headers included */
    uint64_t bytes_sent;        /* bytes to the server, headers included */
    uint64_t reconnects;        /* times the connection was made again */
    uint64_t view_moves;        /* times a region's view moved to a newer epoch */
    uint64_t mappings;          /* now: mappings of regions in this process */
    uint64_t regions;           /* now: regions open in this process */
    /* Nanoseconds, to 1/32; the maximum is exact. p50: half of them took at most this long. */
    uint64_t fault_p50_ns;      /* faults that brought something in, from their report until who waited could go on */
    uint64_t fault_p99_ns;
    uint64_t fault_max_ns;
    uint64_t fetch_p50_ns;      /* fetches, from the request to the first frame of its answer */
    uint64_t fetch_p99_ns;
    uint64_t fetch_max_ns;
    uint64_t commit_p50_ns;     /* commits that held something */
    uint64_t commit_p99_ns;
    uint64_t commit_max_ns;
    uint64_t hold_p50_ns;       /* stores held by this process's commits with NETMEM_SNAPSHOT */
    uint64_t hold_p99_ns;
    uint64_t hold_max_ns;
};

/*
 * Writes the counters to *out. Each is read at once, but not all at one instant.
 *
 *   out       where they go
 *   out_size  sizeof *out as the program was compiled. A library that knows fewer counters fills the rest
 *             with zeros; one that knows more leaves them out. So it works both ways between versions
 *
 * Errors: EINVAL (out is NULL, or out_size is 0 or no multiple of 8)
 */
int netmem_stats(struct netmem_stats *out, size_t out_size);

/*
 * The way in which page faults become the library's work in this process. Static text, never NULL:
 *
 *   "none"              nothing of ours was mapped yet, or NETMEM_DISABLE=1
 *   "uffd"              userfaultfd with kernel faults
 *   "uffd-user"         userfaultfd, faults of user code only
 *   "uffd-sigbus"       the same, each fault served in the thread that takes it (only if asked for)
 *   "sigsegv-guard"     SIGSEGV and guard pages
 *   "sigsegv-mprotect"  SIGSEGV and mprotect
 *
 * NETMEM_ENGINE chooses; without it the first that the kernel allows. Never fails.
 */
const char *netmem_engine(void);

/*
 * What the last function of this header that failed in the calling thread met, in one line without a line
 * end: "commit of inventory: no answer from tcp://127.0.0.1:7117 in 30000 ms". Never NULL; "" if none has
 * failed yet. It is the thread's own and valid until that thread's next failure. A success does not
 * clear it.
 */
const char *netmem_last_error(void);


#ifdef __cplusplus
}
#endif

#endif /* NETMEM_H */
