"""How cost grows with the region: the same work in regions of several sizes.

Owns: this subject. Called by: bench.py. Must not: start servers.
"""

from report import Subject, label, micro, ratio, shown, table

RUN_PAGES = 256  # a commit carries 16 runs of so many: all of the smallest region
COMMITS = 9


class Growth(Subject):
    """Random touches and commits of 16 MiB, from a small region to a large one."""

    name = "growth"

    def measure(self, bench):
        for size in bench.options.growth:
            there = 0 if size in bench.regions else size + size // 8 + 1024
            if not bench.room(there, f"a region of {size:,} MiB"):
                continue
            path, pages = bench.region(size), min(bench.options.pages, bench.options.growth[0] << 8)
            values = bench.floor("floor_uffd", "--pages", pages, "--over", size << 8)
            bench.note(f"growth {size}", "floor_uffd", values, rate="touches_per_s")
            values = bench.under(bench.default, bench.program("fault_bench", path, f"{size}M", "rand", "--pages", pages))
            bench.note(f"growth {size}", bench.default, values, rate="touches_per_s", p50="touch_p50_ns")
            run = min(RUN_PAGES, bench.options.growth[0] << 4)
            values = bench.under(bench.default, bench.program(
                "fault_bench", path, f"{size}M", "msyncN", "--pages", run, "--repeat", COMMITS))
            bench.note(f"growth {size}", bench.default, values, commit="msync_mb_per_s")

    def tables(self, bench, at):
        rows, smallest = [], bench.options.growth[0]
        for size in bench.options.growth:
            def get(metric, of=size, who=bench.default):
                return bench.get(at, f"growth {of}", who, metric)
            floor, least = (get("rate", of, "floor_uffd") for of in (size, smallest))
            rows.append([f"{size:,} MiB", shown(floor, 0), ratio(floor, least), shown(get("rate"), 0),
                         ratio(get("rate"), get("rate", smallest)), ratio(get("rate"), floor), micro(get("p50")),
                         shown(get("commit"), 0), ratio(get("commit"), get("commit", smallest))])
        return [table(f"The same work in regions of several sizes, {label(bench.default)}; × the smallest; {at.text}",
                      ["", "floor_uffd touches/s", "×", "random touches/s", "×", "× floor", "p50 µs", "msync of 16 runs MB/s",
                       "×"], rows)]

    def wanted(self, bench, at):
        for metric, what in (("rate", "first touches a second"), ("commit", "bytes committed a second")):
            values = [bench.get(at, f"growth {size}", bench.default, metric) for size in bench.options.growth]
            value = None if None in values else min(values) / max(values)
            yield f"{what}, {bench.default}, the worst region size over the best", "at least", 0.85, " ×", value


SUBJECTS = [Growth()]
