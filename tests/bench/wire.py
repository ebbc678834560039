"""Far memory behind wires of different rates, compressed or not: whether what was measured decides rightly.

Owns: this subject, and the namespace in which its server is. Called by: bench.py. Must not: leave a device behind.
"""

import contextlib
import os
import subprocess

from report import Subject, ratio, over, shown, table

NAME, OURS, THEIRS = "netmem-bench", "10.117.0.1", "10.117.0.2"
# What tc(8) calls the rate, and MiB that are moved through it: a slow wire takes longer.
WIRES = {"100 Mbit/s": ("100mbit", 64), "1 Gbit/s": ("1gbit", 64), "no limit": (None, 128)}
# Of each word's 64 bits those that are random.
WORDS = (12, 25, 64)
WAYS = ("off", "on", "auto")


def ip(*words, netns=False):
    command = ["ip", "netns", "exec", NAME, *words] if netns else list(words)
    subprocess.run(command, check=True, capture_output=True, text=True)


def lay(rate):
    """Another host behind a wire of that rate."""
    ip("ip", "netns", "add", NAME)
    ip("ip", "link", "add", "netmem0", "type", "veth", "peer", "name", "netmem1", "netns", NAME)
    ip("ip", "addr", "add", f"{OURS}/24", "dev", "netmem0")
    ip("ip", "link", "set", "netmem0", "up")
    ip("ip", "addr", "add", f"{THEIRS}/24", "dev", "netmem1", netns=True)
    ip("ip", "link", "set", "netmem1", "up", netns=True)
    if rate:
        shape = ["root", "tbf", "rate", rate, "burst", "256k", "latency", "20ms"]
        ip("tc", "qdisc", "add", "dev", "netmem0", *shape)
        ip("tc", "qdisc", "add", "dev", "netmem1", *shape, netns=True)


def take_up():
    for command in (["link", "del", "netmem0"], ["netns", "del", NAME]):
        with contextlib.suppress(OSError):
            subprocess.run(["ip", *command], check=False, capture_output=True)


@contextlib.contextmanager
def behind(rate):
    """With another host behind a wire: None, or why there is none."""
    why = None
    try:
        try:
            lay(rate)
        except (OSError, subprocess.CalledProcessError) as error:
            why = (getattr(error, "stderr", None) or str(error)).strip()
        yield why
    finally:
        take_up()


class Wire(Subject):
    """Sums of memory of which three quarters are behind a wire."""

    name = "wire"
    once = True

    def measure(self, bench):
        for wire, (rate, most) in WIRES.items():
            with behind(rate) as why:
                if why is not None:
                    return bench.remark("wire", f"left out, since there is no other host behind a wire here: {why}")
                self.measure_behind(bench, wire, min(bench.options.mib, most))

    def measure_behind(self, bench, wire, mib):
        command = ["ip", "netns", "exec", NAME, bench.options.server or os.path.join(bench.binaries, "netmem-server"),
                   "--bind", THEIRS, "--insecure", "--port", "0", "--log", "warn"]
        url, kept = bench.start_server(wire, command, "netmem-server ready on "), bench.url
        bench.url = url
        try:
            for bits in WORDS:
                for way in WAYS:
                    values = bench.under("auto", bench.program("memory", mib, "scan", 0, bits), NETMEM_COMPRESS=way,
                                         NETMEM_MEMORY_BYTES=f"{max(mib // 4, 8)}M")
                    bench.note(f"wire {wire} {bits}", way, values, rate="scan_mb_per_s", saved="far_bytes_packing_saved")
        finally:
            bench.url = kept
            bench.stop_server(wire)

    def tables(self, bench, at):
        rows = []
        for wire in WIRES:
            for bits in WORDS:
                off, *others = (bench.get(at, f"wire {wire} {bits}", way, "rate") for way in WAYS)
                if off is not None:
                    rows.append([f"{wire}, {bits} bits", shown(off), *(cell for rate in others for cell in (shown(rate), ratio(rate, off)))])
        title = f"Sums in order of memory of which three quarters are behind a wire, MB/s; of each 64 bits so many are random; {at.text}"
        return [table(title, ["wire, words", "off", "on", "×", "auto", "×"], rows)] if rows else []

    def wanted(self, bench, at):
        for wire in WIRES:
            for bits in WORDS:
                off, on, auto = (bench.get(at, f"wire {wire} {bits}", way, "rate") for way in WAYS)
                if off and on:
                    yield (f"sums behind {wire}, words of {bits} bits: compression by measurement over the better of never and always",
                           "at least", 0.8, " ×", over(auto, max(off, on)))


SUBJECTS = [Wire()]
