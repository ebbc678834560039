"""Far memory: anonymous memory under a budget.

Owns: this subject. Called by: bench.py. Must not: start servers.
"""

import os
import shutil
import subprocess

from report import Subject, label, milli, over, ratio, shown, table
from swap import limited, within

PYTHON = "/usr/bin/python3"
HERE = os.path.dirname(os.path.abspath(__file__))
SORT, ZIPF = os.path.join(HERE, "sort.py"), os.path.join(HERE, "zipf.py")
# What numpy and the interpreter take besides the numbers.
SORT_MORE_MIB = 32
# What redis takes besides its keys and values, as a factor.
REDIS_MORE = 1.05
PARTS = {"all and more": 2.0, "half": 0.5, "a quarter": 0.25}


class Far(Subject):
    """Memory that fits, scans, random touches, a sort and redis, each with the data on the server beyond the budget."""

    name = "far"

    def budget(self, mib):
        return {"NETMEM_MEMORY_BYTES": f"{max(int(mib), 8)}M"}

    def has_numpy(self):
        if not hasattr(self, "numpy"):
            done = subprocess.run([PYTHON, "-c", "import numpy"], capture_output=True, check=False)
            self.numpy = done.returncode == 0
        return self.numpy

    def measure(self, bench):
        mib = bench.options.mib
        memory = lambda mode, *more: bench.program("memory", mib, mode, *more)
        bench.note("far fit", "without", bench.run(memory("fit")), total="total_ms")
        bench.note("far fit", "with", bench.under("auto", memory("fit"), **self.budget(2 * mib)), total="total_ms")
        bench.note("far scan", "floor_seq", bench.floor("floor_seq", "--mib", mib), rate="seq_mb_per_s")
        bench.note("far scan", "with", bench.under("auto", memory("scan"), **self.budget(mib // 4)), rate="scan_mb_per_s")
        pages = min(bench.options.pages, mib << 7)
        bench.note("far touch", "region", bench.under(bench.default, bench.program(
            "fault_bench", bench.region(mib), f"{mib}M", "rand", "--pages", pages)), rate="touches_per_s")
        for mode in ("read", "write"):
            values = bench.under("auto", memory(mode, pages), **self.budget(mib // 4))
            bench.note("far touch", mode, values, rate="touches_per_s")
        self.measure_redis(bench, mib)
        if not self.has_numpy():
            bench.remark("sort", "left out, since there is no numpy for /usr/bin/python3")
            return
        sort = [PYTHON, SORT, str(mib)]
        bench.note("far sort", "without", bench.run(sort), total="sort_ms")
        for name, part in PARTS.items():
            values = bench.under("auto", sort, **self.budget((mib + SORT_MORE_MIB) * part))
            bench.note("far sort", name, values, total="sort_ms")
        limit = int((mib + SORT_MORE_MIB) * PARTS["a quarter"]) << 20
        with limited(os.path.dirname(bench.options.programs), limit) as (procs, why):
            if procs is None:
                return bench.remark("the kernel's swap", f"left out: {why}")
            bench.note("far sort", "swap", bench.run(within(procs, sort)), total="sort_ms")

    def measure_redis(self, bench, mib):
        if shutil.which("redis-server") is None:
            return bench.remark("redis", "left out, since there is no redis-server")
        zipf = [PYTHON, ZIPF, str(mib)]
        bench.note("far zipf", "without", bench.run(zipf), total="zipf_ms")
        for name, part in PARTS.items():
            cache = bench.cache()
            environment = {"REDIS_PRELOAD": bench.library, "NETMEM_SERVER": bench.url, "NETMEM_DIR": cache,
                           **self.budget(mib * REDIS_MORE * part)}
            bench.note("far zipf", name, bench.run(zipf, environment), total="zipf_ms")
            shutil.rmtree(cache, ignore_errors=True)

    def tables(self, bench, at):
        mib = bench.options.mib
        get = lambda test, who, metric: bench.get(at, test, who, metric)
        base = get("far fit", "without", "total")
        rows = [[who, shown(get("far fit", who, "total"), 0), ratio(get("far fit", who, "total"), base)]
                for who in ("without", "with")]
        found = [table(f"{mib} MiB of memory in a budget of twice that; {at.text}", ["the budget", "ms", "×"], rows)]
        floor = get("far scan", "floor_seq", "rate")
        rows = [[name, shown(get("far scan", who, "rate"), 0), ratio(get("far scan", who, "rate"), floor)]
                for name, who in (("floor_seq", "floor_seq"), ("memory, three quarters of it far", "with"))]
        found.append(table(f"Sums of {mib} MiB in order; {at.text}", ["", "MB/s", "× floor_seq"], rows))
        floor = get("far touch", "region", "rate")
        rows = [[name, shown(get("far touch", who, "rate"), 0), ratio(get("far touch", who, "rate"), floor)]
                for name, who in ((f"first touches of a region, {label(bench.default)}", "region"),
                                  ("loads", "read"), ("stores", "write"))]
        found.append(table(f"Random touches of {mib} MiB of memory, three quarters of it far, beside a region with room; {at.text}",
                           ["", "touches/s", "×"], rows))
        base = get("far sort", "without", "total")
        if base is not None:
            rows = [[name, milli(base and get("far sort", name, "total") and get("far sort", name, "total") * 1e6),
                     ratio(get("far sort", name, "total"), base)] for name in ("without", *PARTS)]
            swap = get("far sort", "swap", "total")
            rows.append(["a quarter, by the kernel's swap to a file", milli(swap and swap * 1e6), ratio(swap, base)])
            found.append(table(f"numpy sorts {mib} MiB of numbers; {at.text}", ["budget, of what it needs", "ms", "×"], rows))
        base = get("far zipf", "without", "total")
        if base is not None:
            rows = [[name, milli(base and get("far zipf", name, "total") and get("far zipf", name, "total") * 1e6),
                     ratio(get("far zipf", name, "total"), base)] for name in ("without", *PARTS)]
            found.append(table(f"redis with {mib} MiB of keys, asked by a law of Zipf; {at.text}",
                               ["budget, of what it needs", "ms", "×"], rows))
        return found

    def wanted(self, bench, at):
        get = lambda test, who, metric: bench.get(at, test, who, metric)
        yield ("memory that fits its budget, time over that without netmem", "at most", 1.03, " ×",
               over(get("far fit", "with", "total"), get("far fit", "without", "total")))
        yield ("sums of four times the budget, bytes a second over floor_seq", "at least", 0.75, " ×",
               over(get("far scan", "with", "rate"), get("far scan", "floor_seq", "rate")))
        yield ("random stores with eviction, touches a second over first touches without", "at least", 0.5, " ×",
               over(get("far touch", "write", "rate"), get("far touch", "region", "rate")))
        for name, most in (("half", 2), ("a quarter", 3)):
            yield (f"numpy sort in {name} of its memory, time over that without netmem", "at most", most, " ×",
                   over(get("far sort", name, "total"), get("far sort", "without", "total")))
        for name, most in (("half", 2), ("a quarter", 3)):
            yield (f"redis in {name} of its memory, asked by a law of Zipf, time over that without netmem", "at most", most, " ×",
                   over(get("far zipf", name, "total"), get("far zipf", "without", "total")))
        yield ("numpy sort in a quarter, time over that with the kernel's swap to a file", "at most", 1, " ×",
               over(get("far sort", "a quarter", "total"), get("far sort", "swap", "total")))


SUBJECTS = [Far()]
