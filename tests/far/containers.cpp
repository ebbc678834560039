// Containers of many small nodes and of large blocks, with values that follow from their keys.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <unordered_map>
#include <vector>

int main(int count, char **arguments) {
    const uint64_t n = 700000u * (count > 1 ? std::atoi(arguments[1]) : 1);
    std::unordered_map<uint64_t, std::string> map;
    for (uint64_t i = 0; i < n; i++)
        map[i * 2654435761u] = "value " + std::to_string(i) + " of a node that is on the heap";
    std::vector<uint64_t> all(n * 8);
    std::iota(all.begin(), all.end(), 0);
    for (uint64_t i = 0; i < n; i += 2)
        map.erase(i * 2654435761u);
    std::reverse(all.begin(), all.end());
    std::sort(all.begin(), all.end());
    for (uint64_t i = 0; i < all.size(); i++)
        if (all[i] != i)
            return std::printf("all[%lu] is %lu\n", i, all[i]), 1;
    for (uint64_t i = 1; i < n; i += 2) {
        auto found = map.find(i * 2654435761u);
        if (found == map.end() || found->second != "value " + std::to_string(i) + " of a node that is on the heap")
            return std::printf("key %lu\n", i), 1;
    }
    std::puts(map.size() == n / 2 ? "ok" : "too many");
    return 0;
}
