/*
 * inventory: stock in a region, changed in steps that other hosts see whole or not at all. The one example
 * that knows netmem: C++17, include/netmem.hpp, linked with -lnetmem.
 *
 *     netmem run -- ./inventory                         the region "inventory", /netmem/inventory
 *     netmem run -- ./inventory stock/north             another one, if the directory /netmem/stock exists
 *
 * There is no local variant: the file would have to be on a netmem server. The first run prints:
 *
 *     stocked: bolt 100, nut 100, washer 250
 *     order of 30 bolts with nuts: bolt 70, nut 70, washer 250
 *     order of 80 bolts with nuts: refused
 *     left: bolt 70, nut 70, washer 250
 *
 * and each further run begins with what the one before left: "found:" in place of "stocked:". An order takes
 * bolts and nuts in one commit. If another host sold some of the same meanwhile, NETMEM_STRICT refuses the
 * commit (ESTALE), the order is undone here, the newest stock looked at, and the order tried again.
 */
#include "netmem.hpp"

#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

namespace {

struct item {
    char name[24]; // empty: no item
    std::uint64_t count;
};

constexpr std::size_t ITEMS = 4096 / sizeof(item);
constexpr int TRIES_MAX = 100;

using stock = netmem::mapping<item>;

void print(const char *what, const stock &items) {
    std::printf("%s", what);
    const char *separator = ": ";
    for (const item &each : items) {
        if (each.name[0] == 0)
            continue;
        std::printf("%s%s %ju", separator, each.name, static_cast<std::uintmax_t>(each.count));
        separator = ", ";
    }
    std::printf("\n");
}

void add(stock &items, const char *name, std::uint64_t count) {
    for (item &each : items) {
        if (each.name[0] != 0)
            continue;
        std::snprintf(each.name, sizeof each.name, "%s", name);
        each.count = count;
        return;
    }
}

item &find(stock &items, const char *name) {
    for (item &each : items)
        if (std::strcmp(each.name, name) == 0)
            return each;
    throw std::runtime_error(std::string("no such item: ") + name);
}

// Takes `count` bolts and as many nuts, both or neither, as one commit. False: there are not enough.
bool order(netmem::region &region, stock &items, std::uint64_t count) {
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        item &bolt = find(items, "bolt");
        item &nut = find(items, "nut");
        if (bolt.count < count || nut.count < count)
            return false;
        bolt.count -= count;
        nut.count -= count;
        try {
            region.commit(NETMEM_STRICT);
            return true;
        } catch (const std::system_error &error) {
            bolt.count += count; // back to what this host's view holds, so that nothing of ours is in the way
            nut.count += count;
            if (error.code().value() != ESTALE)
                throw;
            region.refresh();
        }
    }
    throw std::runtime_error("other hosts were faster every time");
}

} // namespace

int main(int argc, char **argv) try {
    netmem::region region(argc > 1 ? argv[1] : "inventory", O_RDWR | O_CREAT);
    const bool fresh = region.size() == 0;
    if (fresh)
        region.resize(ITEMS * sizeof(item));
    stock items = region.map<item>(ITEMS);
    if (fresh) {
        add(items, "bolt", 100);
        add(items, "nut", 100);
        add(items, "washer", 250);
        region.commit();
    }
    print(fresh ? "stocked" : "found", items);
    for (const std::uint64_t count : {std::uint64_t{30}, std::uint64_t{80}}) {
        const std::string what = "order of " + std::to_string(count) + " bolts with nuts";
        if (order(region, items, count))
            print(what.c_str(), items);
        else
            std::printf("%s: refused\n", what.c_str());
    }
    print("left", items);
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "inventory: %s\n", error.what());
    return 1;
}
