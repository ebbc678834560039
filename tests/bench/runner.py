"""Runs servers and programs, pinned, and keeps what they say.

Owns: processes, page cache directories, samples, failures. Called by: bench.py, the subjects. Must not: know what is
measured.
"""

import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

# The rungs of the ladder: what selects each. The first one is the default engine where all are there.
RUNGS = {
    "uffd": {"NETMEM_ENGINE": "uffd"},
    "uffd-sync": {"NETMEM_ENGINE": "uffd", "NETMEM_MASK": "wp-async,pagemap-scan"},
    "uffd-user": {"NETMEM_ENGINE": "uffd-user"},
    "uffd-sigbus": {"NETMEM_ENGINE": "uffd-sigbus"},
    "sigsegv-guard": {"NETMEM_ENGINE": "sigsegv"},
    "sigsegv-mprotect": {"NETMEM_ENGINE": "sigsegv", "NETMEM_MASK": "guard"},
}
RUN_SECONDS_MAX = 120
# What one program fills and commits at a time: so much of it is on the client and on the server at once.
FILL_MIB = 512


class Stop(Exception):
    """Nothing can be measured."""


@dataclass(frozen=True)
class Placement:
    """Which CPU has what."""

    name: str
    cpu: int
    server_cpu: int
    text: str


def placements(cpus, names):
    """One CPU for both sides; one each."""
    found = [Placement("one", cpus[0], cpus[0], f"server and program on CPU {cpus[0]}")]
    if len(cpus) > 1:
        found.append(Placement("two", cpus[0], cpus[1], f"program on CPU {cpus[0]}, server on CPU {cpus[1]}"))
    return [placement for placement in found if placement.name in names]


class Bench:
    """One revision, measured: its servers, its results."""

    def __init__(self, options, binaries):
        self.options = options
        self.binaries = binaries
        self.library = os.path.join(binaries, "libnetmem.so")
        self.samples = {}  # (placement, test, contender, metric) -> values, one a round
        self.failures = []
        self.remarks = {}  # what was left out -> why
        self.at = None
        self.servers = {}  # name -> process
        self.url = self.port = None
        self.regions = {}
        self.undo = []  # what has to be done before the servers end, last first
        self.caches = 0
        self.rungs = dict(options.rungs)
        tmpfs = options.tmpfs or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.place = tempfile.mkdtemp(prefix="netmem-bench-", dir=tmpfs)
        self.local = os.path.join(self.place, "local")

    # Processes.

    def environment(self, more=None):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("NETMEM_") and k != "LD_PRELOAD"}
        return {**kept, **(more or {})}

    def start_server(self, name, command, ready=None, cpu=None):
        """Starts a server on its CPU, and gives what follows `ready` on its standard output."""
        cpu = self.at.server_cpu if cpu is None else cpu
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment(),
                                 preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
        self.servers[name] = child
        while ready is not None:
            line = child.stdout.readline()
            if not line:
                raise Stop(f"{command[0]} did not get ready")
            if line.startswith(ready):
                return line[len(ready):].strip()
        return None

    def stop_server(self, name):
        child = self.servers.pop(name, None)
        if child is None:
            return
        if child.poll() is not None:
            self.failures.append(f"{os.path.basename(child.args[0])} ended by itself: status {child.returncode}")
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()

    def start_netmem(self, name):
        """A netmem-server; its URL."""
        return self.start_server(name, [self.options.server or os.path.join(self.binaries, "netmem-server"),
                                        "--port", "0", "--log", "warn"], "netmem-server ready on ")

    def stop_servers(self):
        while self.undo:
            self.undo.pop()()
        for name in list(self.servers):
            self.stop_server(name)
        self.regions = {}

    def run(self, command, environment=None, cpu=None):
        """The key=value lines of a program, or None and a line in failures."""
        what = " ".join(os.path.basename(word) for word in command)
        cpu = self.at.cpu if cpu is None else cpu
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

    def floor(self, name, *arguments):
        """Runs a floor program against the floor server."""
        return self.run(self.program(name, "--port", self.port, *arguments))

    def cache(self):
        """A directory of a host that has no page yet."""
        self.caches += 1
        cache = os.path.join(self.place, f"cache-{self.caches}")
        os.mkdir(cache, 0o700)
        return cache

    def under(self, rung, command, cache=None, **more):
        """A program under the library; without a cache, on a host that has no page yet. Its counters too."""
        own = cache or self.cache()
        stats = os.path.join(self.place, "stats")
        environment = {"LD_PRELOAD": self.library, "NETMEM_SERVER": self.url, "NETMEM_DIR": own,
                       "NETMEM_STATS": stats, **self.rungs.get(rung, {}), **more}
        values = self.run(command, environment)
        if values is None:
            self.failures[-1] = f"{rung}: {self.failures[-1]}"
        elif os.path.exists(stats):
            with open(stats, encoding="utf-8") as file:
                counters = dict(line.split()[:2] for line in file if len(line.split()) > 1)
            values = {**counters, **values}
            os.remove(stats)
        if cache is None:
            shutil.rmtree(own, ignore_errors=True)
        return values

    def netmem(self, *arguments):
        """The command netmem: what it prints, or None."""
        done = subprocess.run([os.path.join(self.binaries, "netmem"), *arguments], stdout=subprocess.PIPE, text=True,
                              env=self.environment({"NETMEM_SERVER": self.url}), timeout=RUN_SECONDS_MAX, check=False)
        if done.returncode != 0:
            self.failures.append(f"netmem {' '.join(arguments)}: status {done.returncode}")
            return None
        return done.stdout

    # Regions and rungs.

    def fill(self, name, mib):
        """Makes a region of pages that are no zeros."""
        for first in range(0, mib, FILL_MIB):
            if self.under("auto", self.program("fault_bench", f"/netmem/{name}", f"{mib}M", "fill", "--from", first << 8,
                                               "--pages", FILL_MIB << 8)) is None:
                raise Stop(self.failures[-1])

    def region(self, mib):
        """The path of a region of so many MiB on the server; made when it is first asked for."""
        if mib not in self.regions:
            self.fill(f"r{mib}", mib)
            self.regions[mib] = f"/netmem/r{mib}"
        return self.regions[mib]

    def room(self, mib, what):
        """Whether so much memory is free. If not, that is a remark."""
        with open("/proc/meminfo", encoding="ascii") as file:
            available = next(int(line.split()[1]) >> 10 for line in file if line.startswith("MemAvailable:"))
        if available < mib:
            self.remark(what, f"left out, since it needs {mib:,} MiB and {available:,} are free")
        return available >= mib

    def remark(self, what, text):
        """Once for each thing, whatever the round."""
        self.remarks.setdefault(what, f"{what}: {text}")

    @property
    def default(self):
        """The first of the chosen rungs: what is measured where one is enough."""
        return next(iter(self.rungs))

    def leave_out_unknown_rungs(self):
        """A library that has no engine of a name takes another one, and says so in its counters."""
        for rung in [rung for rung in self.rungs if rung == "uffd-sigbus"]:
            path = self.region(self.options.mib)
            before = len(self.failures)
            values = self.under(rung, self.program("fault_bench", path, 4096, "rand"))
            if values is None or "sigbus" not in values.get("engine", ""):
                del self.rungs[rung]
                del self.failures[before:]
                self.remark(rung, "left out, since this library has no such engine")
        if not self.rungs:
            raise Stop("no rung is left")

    # Samples.

    def note(self, test, contender, values, **metrics):
        """Keeps metrics NAME=KEY of a run's values."""
        for metric, key in metrics.items():
            if values is not None and key in values:
                self.keep(test, contender, metric, float(values[key]))

    def keep(self, test, contender, metric, value):
        self.samples.setdefault((self.at.name, test, contender, metric), []).append(value)

    def get(self, at, test, contender, metric):
        """The median over rounds, or None."""
        values = self.samples.get((at.name, test, contender, metric))
        return statistics.median(values) if values else None

    def write_csv(self, path):
        with open(path, "w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["placement", "test", "contender", "metric", "round", "value"])
            for key, values in self.samples.items():
                for i, value in enumerate(values):
                    out.writerow([*key, i, value])

    # A placement from its beginning to its end.

    def begin(self, at):
        """Starts what every subject uses."""
        self.at = at
        largest = max(self.options.mib, self.options.scan_mib)
        self.port = self.start_server("floor", self.program("floor_server", "--mib", largest), "port=")
        self.url = self.start_netmem("netmem")
        if not os.path.exists(self.local):
            values = self.run(self.program("fault_bench", self.local, f"{self.options.mib}M", "fill"))
            if values is None:
                raise Stop(self.failures[-1])
        self.leave_out_unknown_rungs()

    def close(self):
        self.stop_servers()
        shutil.rmtree(self.place, ignore_errors=True)


def measure(benches, subjects, rounds):
    """All rounds of all subjects, in both placements. Several benches take turns, each first by turns. Gives the seconds
    that each subject took."""
    seconds = dict.fromkeys((subject.name for subject in subjects), 0.0)
    options = benches[0].options
    every = placements(options.cpus, options.placements)
    for at in every:
        try:
            for bench in benches:
                bench.begin(at)
            for each in range(rounds):
                for subject in subjects:
                    if subject.once and at != every[0]:
                        continue
                    print(f"\r{at.name} CPU, round {each + 1} of {rounds}: {subject.name}          ", end="",
                          file=sys.stderr, flush=True)
                    began = time.monotonic()
                    for bench in benches[each % len(benches):] + benches[:each % len(benches)]:
                        subject.measure(bench)
                    seconds[subject.name] += time.monotonic() - began
        finally:
            for bench in benches:
                bench.stop_servers()
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return seconds
