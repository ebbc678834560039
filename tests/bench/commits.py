"""msync: of many pages, and of one in a large mapping.

Owns: these subjects. Called by: bench.py. Must not: start servers.
"""

from report import Subject, label, micro, milli, over, ratio, table

EVERY = 4  # of the scattered commit: each fourth page, fault_bench's msync1
ROUNDS = 9  # commits in a run; the first ones make the server take memory that it has not used before, which the floor does not


class Many(Subject):
    """Commits of as many pages as --mib says: next to one another, and each fourth of a larger region."""

    name = "msync"

    def measure(self, bench):
        mib = bench.options.mib
        for test, every, mode in (("msync", 1, "msync"), ("msync scattered", EVERY, "msync1")):
            path = bench.region(mib * every)
            bench.note(test, "floor_commit", bench.run(bench.program(
                "floor_commit", "--mib", mib, "--every", every, "--rounds", ROUNDS,
                "--receiver-cpu", bench.at.server_cpu)), p50="commit_p50_ns")
            for rung in bench.rungs:
                bench.note(test, rung, bench.under(rung, bench.program(
                    "fault_bench", path, f"{mib * every}M", mode, "--repeat", ROUNDS)), p50="msync_p50_ns")

    def tables(self, bench, at):
        rows = []
        for name in ("floor_commit", *bench.rungs):
            row = [label(name)]
            for test in ("msync", "msync scattered"):
                value = bench.get(at, test, name, "p50")
                row += [milli(value), ratio(bench.get(at, test, "floor_commit", "p50"), value)]
            rows.append(row)
        mib = bench.options.mib
        return [table(f"msync(MS_SYNC) of {mib} MiB, the middle one of {ROUNDS} in a row; {at.text}",
                      ["", "in order ms", "speed × floor", f"each {EVERY}th page of {EVERY * mib} MiB ms", "speed × floor"],
                      rows)]

    def wanted(self, bench, at):
        for test, what in (("msync", "in order"), ("msync scattered", "scattered")):
            value = over(bench.get(at, test, "floor_commit", "p50"), bench.get(at, test, bench.default, "p50"))
            yield f"msync {what}, {bench.default}, bytes a second over floor_commit", "at least", 0.8, " ×", value


class One(Subject):
    """A commit of one page, with little and with much beside it."""

    name = "msync1"

    def huge(self, bench):
        """So many MiB are mapped, of a region of at least as many: that of `growth`, if it is large enough."""
        huge = bench.options.huge_mib
        return huge, max(huge, max(bench.options.growth)) if "growth" in bench.options.only else huge

    def measure(self, bench):
        options = bench.options
        path = bench.region(options.mib)
        bench.note("msync one page", "floor_rtt", bench.floor(
            "floor_rtt", "--count", options.repeat, "--pages", options.mib << 8), p50="rtt_p50_ns")
        for rung in bench.rungs:
            values = bench.under(rung, bench.program("fault_bench", path, 4096, "msync", "--repeat", options.repeat))
            bench.note("msync one page", rung, values, p50="msync_p50_ns")
            values = bench.under(rung, bench.program("msync_one", path, options.mib))
            bench.note("msync one page", rung, values, in_big="msync_p50_ns")
        huge, region = self.huge(bench)
        there = 0 if region in bench.regions else region + region // 8
        if bench.room(there + huge + huge // 8 + 1024, f"msync of one page with {huge:,} MiB resident"):
            values = bench.under(bench.default, bench.program("msync_one", bench.region(region), huge, "--repeat", 100))
            bench.note("msync one page", bench.default, values, in_huge="msync_p50_ns")

    def allowed(self, bench, at):
        """Two round trips and a millisecond a GiB."""
        rtt = bench.get(at, "msync one page", "floor_rtt", "p50")
        return None if rtt is None else 2 * rtt + 1e6 * bench.options.huge_mib / 1024

    def tables(self, bench, at):
        rows, options = [], bench.options
        floor = bench.get(at, "msync one page", "floor_rtt", "p50")
        for name in ("floor_rtt", *bench.rungs):
            row = [label(name)]
            for metric in ("p50", "in_big", "in_huge"):
                value = floor if name == "floor_rtt" else bench.get(at, "msync one page", name, metric)
                row += [micro(value), ratio(value, floor)]
            rows.append(row)
        rows.append(["two round trips and 1 ms a GiB", "", "", "", "", micro(self.allowed(bench, at)), ""])
        return [table(f"msync(MS_SYNC) of one changed page, by what is mapped and resident; {at.text}",
                      ["", "4 KiB µs", "×", f"{options.mib} MiB µs", "×", f"{options.huge_mib} MiB µs", "×"], rows)]

    def wanted(self, bench, at):
        value = over(bench.get(at, "msync one page", bench.default, "in_huge"), self.allowed(bench, at))
        what = f"msync of one page, {bench.options.huge_mib} MiB resident, over two round trips and 1 ms a GiB"
        yield what, "at most", 1, " ×", value


SUBJECTS = [Many(), One()]
