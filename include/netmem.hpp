/*
 * netmem.hpp - netmem.h with owners: a region closes itself, a mapping unmaps itself, an error throws.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * C++11 and later, header only; link with -lnetmem. netmem.h is the manual: each member here calls one of
 * its functions and keeps its meaning, units and thread-safety. What returns -1 there throws
 * std::system_error here, whose code() is errno in std::generic_category() and whose what() is
 * netmem_last_error(). Destructors don't throw, so they can't report: commit() first.
 *
 *     netmem::region region("inventory", O_RDWR | O_CREAT);
 *     region.resize(1 << 20);
 *     netmem::mapping<std::uint64_t> counts = region.map<std::uint64_t>();
 *     counts[0] += 1;
 *     region.commit();
 *
 * A region and a mapping are moved, never copied, and a mapping may outlive its region. Distinct objects may
 * be used by distinct threads; one object by several, as long as none moves, closes or resets it.
 */
#ifndef NETMEM_HPP
#define NETMEM_HPP

#include "netmem.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <limits>
#include <string>
#include <system_error>
#include <type_traits>
#include <unistd.h>
#include <utility>

namespace netmem {

namespace detail {

[[noreturn]] inline void fail_last() {
    const int error = errno; // netmem_last_error() and the allocation below may change it
    throw std::system_error(error, std::generic_category(), netmem_last_error());
}

[[noreturn]] inline void fail(int error, const char *what) {
    throw std::system_error(error, std::generic_category(), what);
}

inline void must(int result) {
    if (result != 0)
        fail_last();
}

} // namespace detail

/*
 * Objects of type T in a mapping: a span that owns. T must be trivially copyable, since other processes
 * see its bytes and no constructor runs. A const T maps for reading only.
 */
template <typename T>
class mapping {
    static_assert(std::is_trivially_copyable<T>::value, "what lies in a region is shared as bytes");

public:
    typedef T element_type;
    typedef typename std::remove_cv<T>::type value_type;
    typedef std::size_t size_type;
    typedef T *pointer;
    typedef T &reference;
    typedef T *iterator;

    mapping() noexcept : data_(nullptr), count_(0), length_(0) {}

    /* Takes over `length` bytes at `data`, which netmem_map returned. */
    mapping(T *data, std::size_t length) noexcept
        : data_(data), count_(length / sizeof(T)), length_(length) {}

    mapping(mapping &&other) noexcept : data_(other.data_), count_(other.count_), length_(other.length_) {
        other.forget();
    }

    mapping &operator=(mapping &&other) noexcept {
        if (this != &other) {
            reset();
            data_ = other.data_;
            count_ = other.count_;
            length_ = other.length_;
            other.forget();
        }
        return *this;
    }

    mapping(const mapping &) = delete;
    mapping &operator=(const mapping &) = delete;

    ~mapping() { reset(); }

    T *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return count_; }
    std::size_t size_bytes() const noexcept { return length_; }
    bool empty() const noexcept { return count_ == 0; }
    T &operator[](std::size_t index) const noexcept { return data_[index]; }
    T *begin() const noexcept { return data_; }
    T *end() const noexcept { return data_ + count_; }

    /* netmem_sync over the whole mapping. Throws. */
    void sync(int flags = MS_SYNC) { detail::must(netmem_sync(address(), length_, flags)); }

    /* Unmaps now. Does not commit; does not throw. */
    void reset() noexcept {
        if (data_ != nullptr)
            (void)netmem_unmap(address(), length_);
        forget();
    }

private:
    void *address() const noexcept { return const_cast<value_type *>(data_); }

    void forget() noexcept {
        data_ = nullptr;
        count_ = 0;
        length_ = 0;
    }

    T *data_;
    std::size_t count_;
    std::size_t length_;
};

/* A descriptor of a region. */
class region {
public:
    region() noexcept : fd_(-1) {}

    /* netmem_open. Throws. O_CLOEXEC is added. */
    explicit region(const std::string &name, int flags = O_RDWR, mode_t mode = 0600)
        : fd_(netmem_open(name.c_str(), flags | O_CLOEXEC, mode)) {
        if (fd_ < 0)
            detail::fail_last();
    }

    region(region &&other) noexcept : fd_(other.release()) {}

    region &operator=(region &&other) noexcept {
        if (this != &other) {
            abandon();
            fd_ = other.release();
        }
        return *this;
    }

    region(const region &) = delete;
    region &operator=(const region &) = delete;

    ~region() { abandon(); }

    /* Owns a descriptor of a region that open(2), dup(2) or recvmsg(2) gave. */
    static region adopt(int fd) noexcept {
        region owner;
        owner.fd_ = fd;
        return owner;
    }

    int fd() const noexcept { return fd_; }
    explicit operator bool() const noexcept { return fd_ >= 0; }

    /* Gives the descriptor away; -1 if there is none. */
    int release() noexcept {
        const int fd = fd_;
        fd_ = -1;
        return fd;
    }

    /* close(2): the last one in a process commits first, and throws if that failed. */
    void close() {
        if (fd_ >= 0 && ::close(release()) != 0)
            detail::fail(errno, "close of a region");
    }

    std::uint64_t size() const {
        std::uint64_t bytes = 0;
        detail::must(netmem_size(fd_, &bytes));
        return bytes;
    }

    void resize(std::uint64_t bytes) { detail::must(netmem_resize(fd_, bytes)); }

    /* netmem_commit; returns the epoch. */
    std::uint64_t commit(unsigned flags = 0) {
        std::uint64_t epoch = 0;
        detail::must(netmem_commit(fd_, flags, &epoch));
        return epoch;
    }

    /* netmem_refresh; returns the epoch. */
    std::uint64_t refresh() {
        std::uint64_t epoch = 0;
        detail::must(netmem_refresh(fd_, &epoch));
        return epoch;
    }

    void prefetch(off_t offset = 0, std::size_t length = 0) {
        detail::must(netmem_prefetch(fd_, offset, length));
    }

    /*
     * Maps `count` objects from byte `offset`, a multiple of 4096; count 0: as many as fit before the end.
     * A const T maps for reading, others for reading and writing. `flags` is MAP_SHARED or MAP_PRIVATE.
     */
    template <typename T>
    mapping<T> map(std::size_t count = 0, off_t offset = 0, int flags = MAP_SHARED) const {
        if (count == 0) {
            const std::uint64_t bytes = size();
            const std::uint64_t from = offset < 0 ? bytes : static_cast<std::uint64_t>(offset);
            count = from < bytes ? static_cast<std::size_t>((bytes - from) / sizeof(T)) : 0;
        }
        if (count == 0 || count > std::numeric_limits<std::size_t>::max() / sizeof(T))
            detail::fail(EINVAL, "map of a region: nothing to map there");
        const std::size_t length = count * sizeof(T);
        const int prot = std::is_const<T>::value ? PROT_READ : PROT_READ | PROT_WRITE;
        void *address = netmem_map(fd_, nullptr, length, prot, flags, offset);
        if (address == MAP_FAILED)
            detail::fail_last();
        return mapping<T>(static_cast<T *>(address), length);
    }

private:
    void abandon() noexcept {
        if (fd_ >= 0)
            (void)::close(release());
    }

    int fd_;
};

} // namespace netmem

#endif // NETMEM_HPP
