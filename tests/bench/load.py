"""What the server can do for many connections, and what both sides need in memory.

Owns: these subjects. Called by: bench.py. Must not: measure a program's faults.
"""

import os
import shutil

from report import Subject, label, micro, over, ratio, scaled, shown, table

PAGE = 4096
SPARSE_MIB = 1 << 20  # 1 TiB


class Load(Subject):
    """Connections that fetch random pages, each with one request under way."""

    name = "server"

    def requests(self, bench, connections):
        return bench.options.requests // (5 if connections == 1 else 1)

    def measure(self, bench):
        options, mib = bench.options, bench.options.mib
        bench.region(mib)
        number = next((line.split()[1] for line in (bench.netmem("stat", f"r{mib}") or "").splitlines()
                       if line.startswith("number")), None)
        if "epoll" not in bench.servers:
            bench.epoll = bench.start_server("epoll", bench.program("floor_epoll", "--mib", mib), "port=")
        port = bench.url.rsplit(":", 1)[1]
        for connections in options.connections:
            for name, more in (("floor_epoll", ["--port", bench.epoll]),
                               ("netmem-server", ["--port", port, "--region", number])):
                values = bench.run(bench.program("fetch_load", *more, "--connections", connections, "--pages", mib << 8,
                                                 "--requests", self.requests(bench, connections)))
                bench.note(f"server {connections}", name, values, rate="requests_per_s", p50="request_p50_ns",
                           p99="request_p99_ns")

    def tables(self, bench, at):
        rows = []
        for connections in bench.options.connections:
            for name in ("floor_epoll", "netmem-server"):
                def get(metric, who=name, test=f"server {connections}"):
                    return bench.get(at, test, who, metric)
                rows.append([f"{connections:,} connection{'s'[:connections > 1]}, {name}", shown(get("rate"), 0),
                             ratio(get("rate"), get("rate", "floor_epoll")), micro(get("p50")), micro(get("p99")),
                             ratio(get("p99"), get("p99", "floor_epoll"))])
        return [table(f"Random fetches of 4 KiB, one under way on each connection; floor: floor_epoll; {at.text}",
                      ["", "requests/s", "×", "p50 µs", "p99 µs", "×"], rows)]

    def wanted(self, bench, at):
        for connections in bench.options.connections:
            value = over(*(bench.get(at, f"server {connections}", name, "rate")
                           for name in ("netmem-server", "floor_epoll")))
            yield f"server, connections: {connections:,}, fetches a second over floor_epoll", "at least", 0.85, " ×", value


def resident(pid):
    """Bytes of a process that are in memory."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmRSS:"))


def allocated(directory, but):
    """Bytes of all files below a directory, those of `but` left out."""
    found = 0
    for place, _, names in os.walk(directory):
        for name in names:
            status = os.lstat(os.path.join(place, name))
            found += 0 if status.st_size == but else status.st_blocks * 512
    return found


class Memory(Subject):
    """Bytes beside the pages: on the server, on the client, and for a region that is almost empty."""

    name = "memory"
    once = True

    def measure(self, bench):
        self.server(bench)
        self.client(bench)
        self.sparse(bench)

    def server(self, bench):
        """What the second half of the pages adds, on a server of its own: what a server keeps of what it was given back
        depends on what it did before."""
        mib, url = bench.options.mib, bench.url
        try:
            bench.url = bench.start_netmem("memory")
            used, pages = [], []
            for half in ("first", "second"):
                bench.fill(half, mib // 2)
                used.append(resident(bench.servers["memory"].pid))
                pages += [int(line.split()[1]) for line in (bench.netmem("stat") or "").splitlines()
                          if line.startswith("stored")]
        finally:
            bench.stop_server("memory")
            bench.url = url
        if len(pages) == 2:
            bench.keep("memory", "server", "page", (used[1] - used[0]) / (pages[1] - pages[0]))
            bench.keep("memory", "server", "beside", used[0] - pages[0] * PAGE)

    def client(self, bench):
        """What the second half of the pages adds to what the first needs; less what a local file does."""
        mib = bench.options.mib
        for rung in bench.rungs:
            halves = []
            for part in (mib // 2, mib):
                cache = bench.cache()
                ours = bench.under(rung, bench.program("footprint", bench.region(mib), part), cache)
                local = bench.run(bench.program("footprint", bench.local, part))
                control = allocated(cache, mib << 20)
                shutil.rmtree(cache, ignore_errors=True)
                if ours is None or local is None:
                    return
                grown = [control]
                for what in ("anonymous", "tables"):
                    after, before = (float(ours[f"{when}_{what}_bytes"]) - float(local[f"{when}_{what}_bytes"])
                                     for when in ("after", "before"))
                    grown.append(after - before)
                halves.append(grown)
            for name, first, second in zip(("control", "heap", "tables"), *halves):
                bench.keep("memory", rung, name, (second - first) / (mib << 7))
            bench.keep("memory", rung, "beside", 2 * sum(halves[0]) - sum(halves[1]))

    def sparse(self, bench):
        for rung in bench.rungs:
            cache = bench.cache()
            values = bench.under(rung, bench.program("footprint", "/netmem/sparse", SPARSE_MIB, "--sparse"), cache)
            bench.netmem("rm", "sparse")
            control = allocated(cache, SPARSE_MIB << 20)
            shutil.rmtree(cache, ignore_errors=True)
            bench.note("sparse", rung, values, mapped="mapped_ns", touched="touched_ns")
            if values is not None:
                grown = sum(int(values[f"after_{what}_bytes"]) - int(values[f"before_{what}_bytes"])
                            for what in ("anonymous", "tables"))
                bench.keep("sparse", rung, "bytes", grown + control)

    def beside(self, bench, at, rung):
        parts = [bench.get(at, "memory", rung, part) for part in ("control", "heap")]
        return None if None in parts else sum(parts)

    def tables(self, bench, at):
        mib = bench.options.mib
        page, beside = (bench.get(at, "memory", "server", metric) for metric in ("page", "beside"))
        found = [table(f"Resident memory of the server for a stored page, from {mib // 2} to {mib} MiB stored",
                       ["", "bytes", "× 4 KiB", "beside all pages KiB"],
                       [["netmem-server", shown(page, 0), ratio(page, PAGE), shown(scaled(beside, 1024), 0)]])]
        rows = []
        for rung in bench.rungs:
            parts = [bench.get(at, "memory", rung, part) for part in ("control", "heap", "tables")]
            rows.append([label(rung), shown(self.beside(bench, at, rung)), *(shown(part) for part in parts),
                         shown(scaled(bench.get(at, "memory", rung, "beside"), 1024), 0)])
        found.append(table(
            f"Memory of the client for a resident page beside the page, from {mib // 2} to {mib} MiB; more than for a local file",
            ["", "bytes", "control file", "own heap", "page tables", "beside all pages KiB"], rows))
        rows = []
        for rung in bench.rungs:
            get = [bench.get(at, "sparse", rung, metric) for metric in ("mapped", "touched", "bytes")]
            rows.append([label(rung), shown(scaled(get[0], 1e6), 2), shown(scaled(get[1], 1e6), 2),
                         shown(scaled(get[2], 1 << 20), 2)])
        found.append(table("A region of 1 TiB: made, mapped and a page in each quarter touched",
                           ["", "made and mapped ms", "touched ms", "memory MiB"], rows))
        return found

    def wanted(self, bench, at):
        page = over(bench.get(at, "memory", "server", "page"), PAGE)
        yield "memory of the server for a stored page, over 4 KiB", "at most", 1.03, " ×", page
        what = f"memory of the client beside a resident page, {bench.default}"
        yield what, "at most", 32, " bytes", self.beside(bench, at, bench.default)
        mapped, size = (bench.get(at, "sparse", bench.default, metric) for metric in ("mapped", "bytes"))
        yield f"a region of 1 TiB mapped, {bench.default}: time", "at most", 10, " ms", scaled(mapped, 1e6)
        yield f"a region of 1 TiB mapped, {bench.default}: memory", "at most", 10, " MiB", scaled(size, 1 << 20)


SUBJECTS = [Load(), Memory()]
