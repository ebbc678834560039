"""Touches of pages that are on the server: one thread, several, in order, in other orders, and a second time.

Owns: these subjects. Called by: bench.py. Must not: start servers.
"""

import os
import shutil

from report import Subject, label, micro, over, ratio, shown, table

THREADS = (1, 2, 4, 8)
ORDERS = {"seq": "in order", "stride2": "each 2nd page", "stride7": "each 7th page", "reversed": "backwards",
          "two": "two scans by turns"}


def floor_of(rung):
    """The program that does what a rung does."""
    return "floor_sigbus" if rung == "uffd-sigbus" else "floor_uffd"


class Cold(Subject):
    """A random touch: from the load to its value."""

    name = "cold"

    def measure(self, bench):
        pages = bench.options.pages
        path = bench.region(bench.options.mib)

        def csv(contender):
            return ["--csv", os.path.join(bench.options.out, f"latency-{bench.at.name}-{contender}.txt")]

        def keep(contender, values, prefix):
            bench.note("cold", contender, values, p50=f"{prefix}_p50_ns", p99=f"{prefix}_p99_ns", mean=f"{prefix}_mean_ns")

        keep("floor_rtt", bench.floor("floor_rtt", "--count", pages, "--pages", bench.options.mib << 8,
                                      *csv("floor_rtt")), "rtt")
        for floor in ("floor_sigbus", "floor_uffd"):
            keep(floor, bench.floor(floor, "--pages", pages, *csv(floor)), "fault")
        for rung in bench.rungs:
            command = bench.program("fault_bench", path, pages * 4096, "rand", *csv(rung))
            keep(rung, bench.under(rung, command), "touch")

    def tables(self, bench, at):
        def get(name, metric):
            return bench.get(at, "cold", name, metric)

        rows = []
        for name in ("floor_rtt", "floor_sigbus", "floor_uffd", *bench.rungs):
            p50, p99, floor = get(name, "p50"), get(name, "p99"), floor_of(name)
            rows.append([label(name), micro(p50), micro(p99), ratio(p50, get("floor_rtt", "p50")),
                         ratio(p50, get(floor, "p50")), ratio(p99, get(floor, "p99"))])
        title = (f"First touch of a page on the server, random order, {bench.options.pages} pages; floor: floor_uffd, for "
                 f"uffd-sigbus floor_sigbus; {at.text}")
        return [table(title, ["", "p50 µs", "p99 µs", "× floor_rtt", "p50 × floor", "p99 × floor"], rows)]

    def wanted(self, bench, at):
        for rung in {bench.default: 0, "uffd-sigbus": 0}:
            for metric, limit in (("p50", 1.25), ("p99", 1.5)):
                if rung in bench.rungs and (rung == bench.default or metric == "p50"):
                    value = over(bench.get(at, "cold", rung, metric), bench.get(at, "cold", floor_of(rung), metric))
                    yield f"first touch, {rung}, {metric}, over {floor_of(rung)}", "at most", limit, " ×", value


class Threads(Subject):
    """Several threads that fault at once."""

    name = "threads"

    def contenders(self, bench):
        found = {"floor_threads": None, "floor_sigbus": None, bench.default: "floor_threads"}
        if "uffd-sigbus" in bench.rungs:
            found["uffd-sigbus"] = "floor_sigbus"
        return found

    def measure(self, bench):
        path = bench.region(bench.options.mib)
        pages = bench.options.pages
        for threads in THREADS:
            for name, floor in self.contenders(bench).items():
                more = ["--threads", threads]
                if floor is None:
                    values = bench.floor(name, "--pages", pages, *more)
                else:
                    values = bench.under(name, bench.program("fault_bench", path, pages * 4096, "rand", *more))
                bench.note(f"threads {threads}", name, values, rate="touches_per_s")

    def rate(self, bench, at, name, threads):
        return bench.get(at, f"threads {threads}", name, "rate")

    def tables(self, bench, at):
        rows = []
        for name, floor in self.contenders(bench).items():
            row = [label(name)]
            for threads in THREADS:
                rate = self.rate(bench, at, name, threads)
                row += [shown(rate, 0), ratio(rate, self.rate(bench, at, floor or name, threads))]
            rows.append(row)
        columns = [""]
        for threads in THREADS:
            columns += [f"{threads} thread{'s'[:threads > 1]}", "×"]
        title = ("First touches a second by threads that share the pages; floor: floor_threads (one handler, one pipelined "
                 f"connection), for uffd-sigbus floor_sigbus (a connection a thread); {at.text}")
        return [table(title, columns, rows)]

    def wanted(self, bench, at):
        for name, floor in self.contenders(bench).items():
            if floor is None:
                continue
            for threads in THREADS[1:]:
                value = over(self.rate(bench, at, name, threads), self.rate(bench, at, floor, threads))
                yield f"{threads} faulting threads, {name}, faults a second over {floor}", "at least", 0.9, " ×", value
            # No lower, but for what a rate differs from one run to the next.
            value = over(self.rate(bench, at, name, THREADS[-1]), self.rate(bench, at, name, 2))
            yield f"8 faulting threads over 2, {name}", "at least", 0.98, " ×", value


class Order(Subject):
    """Scans that are not next-page, and jumps that nobody announced."""

    name = "order"

    def measure(self, bench):
        mib = bench.options.scan_mib
        path, pages = bench.region(mib), (mib << 8) // 7
        for order, stride in (("seq", 1), ("stride2", 2), ("stride7", 7)):
            bench.note("order", f"floor_seq {order}", bench.floor("floor_seq", "--pages", pages, "--stride", stride),
                       rate="seq_mb_per_s")
        for order in ORDERS:
            values = bench.under(bench.default, bench.program("fault_bench", path, f"{mib}M", order, "--pages", pages))
            bench.note("order", order, values, rate="mb_per_s", fetched="pages_fetched")
        path, mib = bench.region(bench.options.mib), bench.options.mib
        for prefetch in ("auto", "off"):
            values = bench.under(bench.default, bench.program(
                "fault_bench", path, f"{mib}M", "shuffled", "--pages", bench.options.pages), NETMEM_PREFETCH=prefetch)
            bench.note("shuffled", prefetch, values, rate="touches_per_s", p50="touch_p50_ns", p99="touch_p99_ns",
                       fetched="pages_fetched")

    def tables(self, bench, at):
        pages = (bench.options.scan_mib << 8) // 7
        rate = bench.get(at, "order", "seq", "rate")
        rows = []
        for order, what in ORDERS.items():
            def get(metric, who=order):
                return bench.get(at, "order", who, metric)
            floor = get("rate", f"floor_seq {order}")
            rows.append([what, shown(floor, 0), shown(get("rate"), 0), ratio(get("rate"), floor),
                         ratio(get("rate"), rate), ratio(get("fetched"), pages)])
        found = [table(f"First touches of {pages} pages in several orders, {label(bench.default)}; {at.text}",
                       ["", "floor_seq MB/s", "MB/s touched", "× floor", "× in order", "fetched a touched page"], rows)]
        off, rows = bench.get(at, "shuffled", "off", "rate"), []
        for prefetch in ("off", "auto"):
            def get(metric, prefetch=prefetch):
                return bench.get(at, "shuffled", prefetch, metric)
            rows.append([f"NETMEM_PREFETCH={prefetch}", shown(get("rate"), 0), ratio(get("rate"), off), micro(get("p50")),
                         micro(get("p99")), ratio(get("fetched"), bench.options.pages)])
        found.append(table(
            f"First touches in random order without MADV_RANDOM, {bench.options.pages} pages of {bench.options.mib} MiB, "
            f"{label(bench.default)}; {at.text}",
            ["", "touches/s", "× off", "p50 µs", "p99 µs", "fetched a touched page"], rows))
        return found

    def wanted(self, bench, at):
        for order, what in list(ORDERS.items())[1:]:
            value = over(bench.get(at, "order", order, "rate"), bench.get(at, "order", "seq", "rate"))
            yield f"first touches {what}, bytes a second over those in order", "at least", 0.7, " ×", value
        value = over(bench.get(at, "shuffled", "auto", "rate"), bench.get(at, "shuffled", "off", "rate"))
        yield "first touches at random, prefetch on over off", "at least", 0.95, " ×", value


class Sequential(Subject):
    """A scan from the first page to the last."""

    name = "seq"

    def measure(self, bench):
        mib = bench.options.scan_mib
        path = bench.region(mib)
        for name, more in (("floor_seq", []), ("floor_seq, not installed", ["--receive-only"])):
            bench.note("seq", name, bench.floor("floor_seq", "--mib", mib, *more), rate="seq_mb_per_s")
        for rung in bench.rungs:
            values = bench.under(rung, bench.program("fault_bench", path, f"{mib}M", "seq"))
            bench.note("seq", rung, values, rate="mb_per_s")

    def tables(self, bench, at):
        floor, rows = bench.get(at, "seq", "floor_seq", "rate"), []
        for name in ("floor_seq, not installed", "floor_seq", *bench.rungs):
            rate = bench.get(at, "seq", name, "rate")
            rows.append([label(name), shown(rate, 0), ratio(rate, floor)])
        return [table(f"First touch in order, {bench.options.scan_mib} MiB; {at.text}", ["", "MB/s", "× floor_seq"], rows)]

    def wanted(self, bench, at):
        value = over(bench.get(at, "seq", bench.default, "rate"), bench.get(at, "seq", "floor_seq", "rate"))
        yield f"first touch in order, {bench.default}, bytes a second over floor_seq", "at least", 0.85, " ×", value


class Again(Subject):
    """A program that runs a second time on the same host."""

    name = "again"

    def measure(self, bench):
        mib = bench.options.mib
        path = bench.region(mib)
        bench.note("again", "local file", bench.run(bench.program("fault_bench", bench.local, f"{mib}M", "seq")),
                   second="mb_per_s")
        for rung in bench.rungs:
            cache = bench.cache()
            for run in ("first", "second"):
                values = bench.under(rung, bench.program("fault_bench", path, f"{mib}M", "seq"), cache)
                bench.note("again", rung, values, **{run: "mb_per_s", f"{run}_fetched": "pages_fetched"})
            shutil.rmtree(cache, ignore_errors=True)

    def tables(self, bench, at):
        rows, local = [], bench.get(at, "again", "local file", "second")
        for name in ("local file", *bench.rungs):
            first, fetched, second, again = (bench.get(at, "again", name, metric)
                                             for metric in ("first", "first_fetched", "second", "second_fetched"))
            rows.append([label(name), shown(first, 0), shown(fetched, 0), shown(second, 0), shown(again, 0),
                         ratio(second, local)])
        return [table(f"The same program twice, {bench.options.mib} MiB in order; {at.text}",
                      ["", "first MB/s", "pages fetched", "second MB/s", "pages fetched", "× local"], rows)]

    def wanted(self, bench, at):
        value = bench.get(at, "again", bench.default, "second_fetched")
        yield "second run on the same files: pages fetched", "at most", 0, "", value


SUBJECTS = [Cold(), Threads(), Order(), Sequential(), Again()]
