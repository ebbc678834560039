#!/usr/bin/env python3
"""What netmem costs, beside the smallest C programs that do the same job. `make bench` calls it.

Every figure is the median over rounds of what one run reports; in a round the contenders take turns, so that whatever
else the machine does meets all of them. All processes are pinned: once server and program share one CPU, once each has
its own. A cold run has a page cache directory of its own and finds no page on this host; the region was imported once.
"""

import argparse
import csv
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

# The rungs of the ladder: what selects each.
RUNGS = {
    "uffd": {"NETMEM_ENGINE": "uffd"},
    "uffd-sync": {"NETMEM_ENGINE": "uffd", "NETMEM_MASK": "wp-async,pagemap-scan"},
    "uffd-user": {"NETMEM_ENGINE": "uffd-user"},
    "sigsegv-guard": {"NETMEM_ENGINE": "sigsegv"},
    "sigsegv-mprotect": {"NETMEM_ENGINE": "sigsegv", "NETMEM_MASK": "guard"},
}
TESTS = ("cold", "seq", "msync", "warm", "start", "calls")
RUN_SECONDS_MAX = 120
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


class Bench:
    """One run of everything: settings, servers, results."""

    def __init__(self, options):
        self.options = options
        self.samples = {}  # (placement, test, contender, metric) -> values, one a round
        self.failures = []
        tmpfs = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.place = tempfile.mkdtemp(prefix="netmem-bench-", dir=tmpfs)
        self.servers = []
        self.url = self.port = None
        self.caches = 0

    # Running one program.

    def environment(self, more=None):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("NETMEM_") and k != "LD_PRELOAD"}
        return {**kept, **(more or {})}

    def start_server(self, command, cpu, ready):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment(),
                                 preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
        self.servers.append(child)
        while True:
            line = child.stdout.readline()
            if not line:
                sys.exit(f"{command[0]} did not get ready")
            if line.startswith(ready):
                return line[len(ready):].strip()

    def stop_servers(self):
        for child in self.servers:
            if child.poll() is not None:
                self.failures.append(f"{os.path.basename(child.args[0])} ended by itself: status {child.returncode}")
            child.terminate()
        for child in self.servers:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            child.stdout.close()
        self.servers = []

    def run(self, command, cpu, environment=None):
        """The key=value lines of a program, or None and a line in failures."""
        what = " ".join(os.path.basename(word) for word in command)
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  timeout=RUN_SECONDS_MAX, env=self.environment(environment),
                                  preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
        except subprocess.TimeoutExpired:
            self.failures.append(f"{what}: not finished after {RUN_SECONDS_MAX} s")
            return None
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            self.failures.append(f"{what}: status {done.returncode}: {' | '.join(said[-3:])}")
            return None
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def program(self, name, *arguments):
        return [os.path.join(self.options.programs, name), *(str(a) for a in arguments)]

    def under(self, rung, command, cpu):
        """A program under the library, on a host that has no page yet."""
        self.caches += 1
        cache = os.path.join(self.place, f"cache-{self.caches}")
        os.mkdir(cache, 0o700)
        environment = {"LD_PRELOAD": os.path.join(self.options.bin, "libnetmem.so"), "NETMEM_SERVER": self.url,
                       "NETMEM_DIR": cache, **RUNGS.get(rung, {})}
        values = self.run(command, cpu, environment)
        if values is None:
            self.failures[-1] = f"{rung}: {self.failures[-1]}"
        shutil.rmtree(cache, ignore_errors=True)
        return values

    def note(self, placement, test, contender, values, **metrics):
        """Keeps metrics NAME=KEY of a run's values."""
        for metric, key in metrics.items():
            if values is not None and key in values:
                self.samples.setdefault((placement, test, contender, metric), []).append(float(values[key]))

    # What is measured, a round at a time.

    def cold(self, at, cpu):
        pages = self.options.pages
        self.note(at, "cold", "floor_rtt", self.run(self.program(
            "floor_rtt", "--port", self.port, "--count", pages, "--pages", self.options.mib << 8), cpu),
            p50="rtt_p50_ns", p99="rtt_p99_ns", mean="rtt_mean_ns")
        self.note(at, "cold", "floor_uffd", self.run(self.program(
            "floor_uffd", "--port", self.port, "--pages", pages), cpu),
            p50="fault_p50_ns", p99="fault_p99_ns", mean="fault_mean_ns")
        for rung in RUNGS:
            self.note(at, "cold", rung, self.under(rung, self.program(
                "fault_bench", "/netmem/data", pages * 4096, "rand"), cpu),
                p50="touch_p50_ns", p99="touch_p99_ns", mean="touch_mean_ns")

    def seq(self, at, cpu):
        mib = self.options.mib
        for name, more in (("floor_seq", []), ("floor_seq, not installed", ["--receive-only"])):
            self.note(at, "seq", name, self.run(self.program(
                "floor_seq", "--port", self.port, "--mib", mib, *more), cpu), rate="seq_mb_per_s")
        for rung in RUNGS:
            self.note(at, "seq", rung, self.under(rung, self.program(
                "fault_bench", "/netmem/data", f"{mib}M", "seq"), cpu), rate="mb_per_s")

    def msync(self, at, cpu):
        # Nine commits a run: the first two or three make the server take memory from the kernel that it has not used
        # before, which the floor does not; the median is that of a server that has.
        mib = self.options.mib
        server_cpu = cpu if at == "one" else self.options.cpus[1]
        for test, every, mode in (("msync", 1, "msync"), ("msync every 4th", 4, "msync1")):
            self.note(at, test, "floor_commit", self.run(self.program(
                "floor_commit", "--mib", mib // every, "--every", every, "--rounds", 9, "--receiver-cpu", server_cpu),
                cpu), p50="commit_p50_ns")
            for rung in RUNGS:
                self.note(at, test, rung, self.under(rung, self.program(
                    "fault_bench", "/netmem/data", f"{mib}M", mode, "--repeat", 9), cpu), p50="msync_p50_ns")
        self.note(at, "msync one page", "floor_rtt", self.run(self.program(
            "floor_rtt", "--port", self.port, "--count", 2000), cpu), p50="rtt_p50_ns")
        for rung in RUNGS:
            values = self.under(rung, self.program("fault_bench", "/netmem/data", 4096, "msync", "--repeat", 500), cpu)
            self.note(at, "msync one page", rung, values, p50="msync_p50_ns")
            values = self.under(rung, self.program("msync_one", "/netmem/data", mib), cpu)
            self.note(at, "msync one page", rung, values, in_big="msync_p50_ns")

    def warm(self, at, cpu):
        if at != "one":
            return  # no server takes part
        local = os.path.join(self.place, "local")
        command = ["fault_bench", None, f"{min(self.options.mib, 64)}M", "warm", "--repeat", 20]
        self.note(at, "warm", "local file", self.run(self.program(command[0], local, *command[2:]), cpu),
                  best="access_best_ns", mean="access_mean_ns")
        for rung in RUNGS:
            self.note(at, "warm", rung, self.under(rung, self.program(command[0], "/netmem/data", *command[2:]), cpu),
                      best="access_best_ns", mean="access_mean_ns")

    def start(self, at, cpu):
        if at != "one":
            return
        library = os.path.join(self.options.bin, "libnetmem.so")
        values = self.run(self.program("startup", library, "--count", 100), cpu)
        self.note(at, "start", "without", values, p50="without_p50_ns", p99="without_p99_ns")
        self.note(at, "start", "with", values, p50="with_p50_ns", p99="with_p99_ns")

    def calls(self, at, cpu):
        if at != "one":
            return
        names = {name: f"{name}_ns" for name in ("mmap", "mprotect", "read", "write", "open", "stat")}
        self.note(at, "calls", "without", self.run(self.program("calls"), cpu), **names)
        self.note(at, "calls", "with", self.under("default", self.program("calls"), cpu), **names)

    def measure(self):
        options = self.options
        local = os.path.join(self.place, "local")
        if self.run(self.program("fault_bench", local, f"{options.mib}M", "fill"), options.cpus[0]) is None:
            sys.exit(self.failures[-1])
        placements = [("one", options.cpus[0], options.cpus[0])]
        if len(options.cpus) > 1:
            placements.append(("two", options.cpus[0], options.cpus[1]))
        for at, cpu, server_cpu in placements:
            if at not in options.placements:
                continue
            self.port = self.start_server(self.program("floor_server", "--mib", options.mib), server_cpu, "port=")
            self.url = self.start_server([options.server, "--port", "0", "--log", "warn"],
                                         server_cpu, "netmem-server ready on ")
            done = subprocess.run([os.path.join(options.bin, "netmem"), "import", "--quiet", local, "data"],
                                  env=self.environment({"NETMEM_SERVER": self.url}), check=False)
            if done.returncode != 0:
                sys.exit("netmem import failed")
            for each in range(options.rounds):
                for test in options.only:
                    print(f"\r{at} CPU, round {each + 1} of {options.rounds}: {test}          ", end="",
                          file=sys.stderr, flush=True)
                    getattr(self, test)(at, cpu)
            self.stop_servers()
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)

    def close(self):
        self.stop_servers()
        shutil.rmtree(self.place, ignore_errors=True)

    # What it says.

    def median(self, *key):
        values = self.samples.get(key)
        return statistics.median(values) if values else None

    def write_csv(self, path):
        with open(path, "w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["placement", "test", "contender", "metric", "round", "value"])
            for key, values in self.samples.items():
                for i, value in enumerate(values):
                    out.writerow([*key, i, value])


def shown(value, digits=1):
    return "-" if value is None else f"{value:,.{digits}f}"


def ratio(value, floor, inverse=False):
    if not value or not floor:
        return "-"
    return f"{(floor / value if inverse else value / floor):.2f}"


def table(title, columns, rows):
    """Text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = [title, ""]
    for row in [columns, *rows]:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def label(contender):
    return f"netmem, {contender}" if contender in RUNGS else contender


def tables(bench):
    options, found = bench.options, []
    places = {"one": f"server and program on CPU {options.cpus[0]}"}
    if len(options.cpus) > 1:
        places["two"] = f"program on CPU {options.cpus[0]}, server on CPU {options.cpus[1]}"

    def per_us(value):
        return None if value is None else value / 1e3

    def per_ms(value):
        return None if value is None else value / 1e6

    for at, place in places.items():
        if at not in options.placements:
            continue
        get = lambda *key, at=at: bench.median(at, *key)
        if "cold" in options.only:
            floor, rows = get("cold", "floor_uffd", "p50"), []
            for name in ("floor_rtt", "floor_uffd", *RUNGS):
                p50, p99 = get("cold", name, "p50"), get("cold", name, "p99")
                rows.append([label(name), shown(per_us(p50)), shown(per_us(p99)),
                             ratio(p50, get("cold", "floor_rtt", "p50")), ratio(p50, floor)])
            found.append(table(f"First touch of a page on the server, random order, {options.pages} pages; {place}",
                               ["", "p50 µs", "p99 µs", "× floor_rtt", "× floor_uffd"], rows))
        if "seq" in options.only:
            floor, rows = get("seq", "floor_seq", "rate"), []
            for name in ("floor_seq, not installed", "floor_seq", *RUNGS):
                rate = get("seq", name, "rate")
                rows.append([label(name), shown(rate, 0), ratio(rate, floor, inverse=True)])
            found.append(table(f"First touch in order, {options.mib} MiB; {place}",
                               ["", "MB/s", "time × floor_seq"], rows))
        if "msync" in options.only:
            rows = []
            for name in ("floor", *RUNGS):
                row = [label(name)]
                for test, floor, metric, scale in (
                        ("msync", "floor_commit", "p50", per_ms), ("msync every 4th", "floor_commit", "p50", per_ms),
                        ("msync one page", "floor_rtt", "p50", per_us), ("msync one page", "floor_rtt", "in_big", per_us)):
                    least = get(test, floor, "p50")
                    value = least if name == "floor" else get(test, name, metric)
                    row += [shown(scale(value)), ratio(value, least)]
                rows.append(row)
            mib = options.mib
            found.append(table(
                "msync(MS_SYNC) of changed pages, each figure the middle one of nine in a row (one page: of hundreds); "
                f"floor: floor_commit, for one page floor_rtt; {place}",
                ["", f"{mib} MiB ms", "×", f"every 4th page of {mib} MiB ms", "×", "one page of 4 KiB µs", "×",
                 f"one page of {mib} MiB µs", "×"], rows))
    get = lambda *key: bench.median("one", *key)
    if "warm" in options.only:
        local, rows = get("warm", "local file", "best"), []
        for name in ("local file", *RUNGS):
            best, mean = get("warm", name, "best"), get("warm", name, "mean")
            rows.append([label(name), shown(best, 2), shown(mean, 2), ratio(best, local)])
        found.append(table(f"Access to pages that are here, random order; CPU {options.cpus[0]}",
                           ["", "best round ns", "mean ns", "× local"], rows))
    if "start" in options.only:
        rows, least = [], get("start", "without", "p50")
        for name in ("without", "with"):
            p50 = get("start", name, "p50")
            extra = "" if name == "without" or p50 is None else f"+{(p50 - least) / 1e3:,.0f}"
            rows.append([f"{name} the library", shown(per_us(p50), 0), shown(per_us(get("start", name, "p99")), 0), extra])
        found.append(table(f"fork, exec and wait of /bin/true; CPU {options.cpus[0]}",
                           ["", "p50 µs", "p99 µs", "extra µs"], rows))
    if "calls" in options.only:
        rows = []
        for name, what in (("mmap", "mmap + munmap, anonymous"), ("mprotect", "mprotect"), ("read", "read of /dev/zero"),
                           ("write", "write to /dev/null"), ("open", "open + close"), ("stat", "stat")):
            without, with_it = get("calls", "without", name), get("calls", "with", name)
            extra = "-" if without is None or with_it is None else f"{with_it - without:+,.0f}"
            rows.append([what, shown(without, 0), shown(with_it, 0), extra])
        found.append(table(f"Calls that are none of netmem's; CPU {options.cpus[0]}",
                           ["", "without ns", "with the library ns", "extra ns"], rows))
    return found


def machine():
    """What the figures were measured on."""
    model, hypervisor, memory = platform.machine(), "", 0
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
            if line.startswith("flags") and " hypervisor" in line:
                hypervisor = ", virtual machine"
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) >> 20
    release = ".".join(platform.release().split("-")[0].split(".")[:2])
    return (f"{platform.machine()}, {model}, {os.cpu_count()} CPUs{hypervisor}, {memory} GiB, Linux {release}, "
            f"loopback TCP, {'root' if os.geteuid() == 0 else 'an unprivileged user'}")


def write_into(path, text):
    """Puts the tables between the marks of a document."""
    with open(path, encoding="utf-8") as file:
        document = file.read()
    if BEGIN not in document or END not in document:
        sys.exit(f"{path} has no line {BEGIN} and {END}")
    before, rest = document.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n```text\n{text}\n```\n{END}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="directory of libnetmem.so, netmem-server and netmem")
    parser.add_argument("--programs", required=True, help="directory of the programs of tests/floor and tests/bench")
    parser.add_argument("--server", metavar="FILE", help="another netmem-server, to compare two of them")
    parser.add_argument("--out", required=True, help="where results.csv and tables.txt go")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pages", type=int, default=8192, help="pages touched in random order")
    parser.add_argument("--mib", type=int, default=256, help="MiB of the region, scanned and committed")
    parser.add_argument("--only", default=",".join(TESTS), help=f"a comma-separated part of {','.join(TESTS)}")
    parser.add_argument("--rungs", default=",".join(RUNGS), help=f"a comma-separated part of {','.join(RUNGS)}")
    parser.add_argument("--placements", default="one,two", help="one: all on one CPU; two: the server on another")
    parser.add_argument("--write", metavar="FILE", help=f"put the tables between {BEGIN} and {END} of FILE")
    options = parser.parse_args()
    options.only, rungs = options.only.split(","), options.rungs.split(",")
    options.placements = options.placements.split(",")
    if not set(options.only) <= set(TESTS) or not set(rungs) <= set(RUNGS):
        parser.error(f"--only is a part of {TESTS}, --rungs of {tuple(RUNGS)}")
    if options.pages > options.mib << 8:
        parser.error("--pages is more than --mib holds")
    for name in set(RUNGS) - set(rungs):
        del RUNGS[name]
    options.bin, options.programs = os.path.abspath(options.bin), os.path.abspath(options.programs)
    options.server = os.path.abspath(options.server or os.path.join(options.bin, "netmem-server"))
    options.cpus = sorted(os.sched_getaffinity(0))[:2]
    os.makedirs(options.out, exist_ok=True)

    load = os.getloadavg()[0]
    bench = Bench(options)
    begin = time.monotonic()
    try:
        bench.measure()
    finally:
        bench.close()
    heading = (f"Machine: {machine()}\n"
               f"Medians of {options.rounds} rounds, the contenders taking turns.")
    text = "\n\n".join([heading, *tables(bench)])
    print(text)
    bench.write_csv(os.path.join(options.out, "results.csv"))
    with open(os.path.join(options.out, "tables.txt"), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    if options.write:
        write_into(options.write, text)
    print(f"\nbench: {time.monotonic() - begin:.0f} s; every round is in {options.out}/results.csv")
    if load > 0.7:
        print(f"bench: the machine was not idle when this began (load {load:.1f}): the ratios say more than the times")
    for failure in bench.failures:
        print(f"bench: FAILED: {failure}")
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
