"""What needs no server: pages that are here, calls, starts.

Owns: these subjects. Called by: bench.py. Must not: start servers.
"""


import os

from report import Subject, label, micro, over, ratio, shown, table

CALLS = {"mmap": "mmap + munmap, anonymous", "mprotect": "mprotect", "read": "read of /dev/zero",
         "write": "write to /dev/null", "open": "open + close", "stat": "stat"}
SIZES = (4, 16, 64, 256, 1024)


class Warm(Subject):
    """Loads from pages that are here."""

    name = "warm"
    once = True

    def measure(self, bench):
        mib = bench.options.mib
        size = [f"{min(mib, 64)}M", "warm", "--repeat", "20"]
        bench.note("warm", "local file", bench.run(bench.program("fault_bench", bench.local, *size)),
                   best="access_best_ns", mean="access_mean_ns")
        for rung in bench.rungs:
            bench.note("warm", rung, bench.under(rung, bench.program("fault_bench", bench.region(mib), *size)),
                       best="access_best_ns", mean="access_mean_ns")

    def tables(self, bench, at):
        local, rows = bench.get(at, "warm", "local file", "best"), []
        for name in ("local file", *bench.rungs):
            best, mean = bench.get(at, "warm", name, "best"), bench.get(at, "warm", name, "mean")
            rows.append([label(name), shown(best, 2), shown(mean, 2), ratio(best, local)])
        return [table(f"Access to pages that are here, random order; CPU {at.cpu}",
                      ["", "best round ns", "mean ns", "× local"], rows)]

    def wanted(self, bench, at):
        value = over(bench.get(at, "warm", bench.default, "best"), bench.get(at, "warm", "local file", "best"))
        yield f"access to pages that are here, {bench.default}, over a local file", "at most", 1.05, " ×", value


class Descriptor(Subject):
    """read and write on pages that are here."""

    name = "io"
    once = True

    def keys(self):
        return [f"{call}_{size}k" for call in ("read", "write") for size in SIZES]

    def measure(self, bench):
        mib = min(bench.options.mib, 64)
        names = {key: f"{key}_ns" for key in self.keys()}
        # It writes, and must not change what the others look for.
        path, local = "/netmem/written", f"{bench.local}-written"
        if not os.path.exists(local):
            bench.run(bench.program("fault_bench", local, f"{mib}M", "fill"))
        bench.note("io", "tmpfs", bench.run(bench.program("descriptor", local, "--mib", mib)), **names)
        if path not in bench.regions:
            bench.fill("written", mib)
            bench.regions[path] = path
        for rung in bench.rungs:
            bench.note("io", rung, bench.under(rung, bench.program("descriptor", path, "--mib", mib)), **names)

    def tables(self, bench, at):
        found = []
        for call in ("read", "write"):
            rows = []
            for name in ("tmpfs", *bench.rungs):
                row = [label(name)]
                for size in SIZES:
                    value, least = (bench.get(at, "io", who, f"{call}_{size}k") for who in (name, "tmpfs"))
                    row += [micro(value, 2), ratio(value, least)]
                rows.append(row)
            columns = [""]
            for size in SIZES:
                columns += [f"{size} KiB µs", "×"]
            found.append(table(f"p{call} of pages that are here, a call; CPU {at.cpu}", columns, rows))
        return found

    def wanted(self, bench, at):
        for call in ("read", "write"):
            ratios = [over(*(bench.get(at, "io", who, f"{call}_{size}k") for who in (bench.default, "tmpfs")))
                      for size in SIZES]
            value = None if None in ratios else max(ratios)
            yield f"{call} by descriptor, 4 KiB to 1 MiB, {bench.default}, the worst over tmpfs", "at most", 1.2, " ×", value


class Start(Subject):
    """The start of a program that uses nothing of netmem."""

    name = "start"
    once = True

    def measure(self, bench):
        values = bench.run(bench.program("startup", bench.library, "--count", bench.options.starts))
        for name in ("without", "with"):
            bench.note("start", name, values, p50=f"{name}_p50_ns", p99=f"{name}_p99_ns")

    def extra(self, bench, at):
        without, with_it = (bench.get(at, "start", name, "p50") for name in ("without", "with"))
        return None if without is None or with_it is None else with_it - without

    def tables(self, bench, at):
        rows = []
        for name in ("without", "with"):
            p50, p99 = bench.get(at, "start", name, "p50"), bench.get(at, "start", name, "p99")
            extra = "" if name == "without" else micro(self.extra(bench, at), 0)
            rows.append([f"{name} the library", micro(p50, 0), micro(p99, 0), extra])
        return [table(f"fork, exec and wait of /bin/true; CPU {at.cpu}", ["", "p50 µs", "p99 µs", "extra µs"], rows)]

    def wanted(self, bench, at):
        extra = self.extra(bench, at)
        yield "start of a program, more by", "at most", 1, " ms", None if extra is None else extra / 1e6


class Calls(Subject):
    """Calls that are none of netmem's."""

    name = "calls"
    once = True

    def measure(self, bench):
        names = {name: f"{name}_ns" for name in CALLS}
        count = ["--count", bench.options.calls]
        bench.note("calls", "without", bench.run(bench.program("calls", *count)), **names)
        bench.note("calls", "with", bench.under("auto", bench.program("calls", *count)), **names)

    def extra(self, bench, at, name):
        without, with_it = (bench.get(at, "calls", who, name) for who in ("without", "with"))
        return None if without is None or with_it is None else with_it - without

    def tables(self, bench, at):
        rows = []
        for name, what in CALLS.items():
            extra = self.extra(bench, at, name)
            rows.append([what, shown(bench.get(at, "calls", "without", name), 0),
                         shown(bench.get(at, "calls", "with", name), 0), "-" if extra is None else f"{extra:+,.0f}"])
        return [table(f"Calls that are none of netmem's; CPU {at.cpu}",
                      ["", "without ns", "with the library ns", "extra ns"], rows)]

    def wanted(self, bench, at):
        # A pair of two calls.
        extra = self.extra(bench, at, "mmap")
        yield "mmap + munmap that are not netmem's, more by, for each", "at most", 50, " ns", extra / 2 if extra else extra


SUBJECTS = [Warm(), Descriptor(), Start(), Calls()]

