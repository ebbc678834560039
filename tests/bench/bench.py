#!/usr/bin/env python3
"""What netmem costs, beside the smallest C programs that do the same job. `make bench` calls it.

Every figure is the median over rounds of what one run reports; in a round the contenders take turns, so that whatever
else the machine does meets all of them. All processes are pinned: once server and program share one CPU, once each has
its own. A cold run has a page cache directory of its own and finds no page on this host.
"""

import argparse
import os
import signal
import sys
import time

sys.dont_write_bytecode = True  # nothing is left in the tree

# pylint: disable=wrong-import-position
import commits
import far
import faults
import growth
import host
import load
import peers
import wire
from figures import figures
from report import BEGIN, END, machine, wanted_table, write_into
from runner import RUNGS, Bench, Stop, measure, placements

SUBJECTS = {subject.name: subject for module in (faults, commits, load, growth, host, far, wire) for subject in module.SUBJECTS}
# Far memory is measured where it is asked for (--only far,wire): with the small sizes of --quick a program can crawl for minutes.
USUAL = tuple(name for name in SUBJECTS if name not in ("far", "wire"))
# What decides how long it takes: (as it is, with --quick).
SIZES = {
    "rounds": (3, 1, "how often everything is measured"),
    "pages": (8192, 512, "pages touched in random order"),
    "mib": (256, 8, "MiB of a region that is touched or committed"),
    "scan-mib": (1024, 8, "MiB that are scanned"),
    "huge-mib": (4096, 16, "MiB resident beside one changed page"),
    "repeat": (500, 20, "commits of one page"),
    "requests": (100000, 1000, "requests of all connections to the server; a fifth of that on one"),
    "starts": (100, 3, "starts of a program"),
    "calls": (20000, 200, "calls of a kind in a round"),
}
LISTS = {
    "growth": ((16, 128, 1024, 8192), (2, 8), "MiB of the regions of growing size"),
    "connections": ((1, 64, 1000), (1, 8), "connections to the server"),
}


def comma(kind):
    return lambda text: [kind(word) for word in text.split(",") if word]


def arguments(description, parser_more=None, only=USUAL, rungs=tuple(RUNGS), rounds=None):
    """The options of every form of the benchmark, with what it measures, and how often, unless told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="directory of libnetmem.so, netmem-server and netmem")
    parser.add_argument("--programs", required=True, help="directory of the programs of tests/floor and tests/bench")
    parser.add_argument("--server", metavar="FILE", help="another netmem-server, to compare two of them")
    parser.add_argument("--out", required=True, help="where results.csv, tables.txt and the figures go")
    parser.add_argument("--tmpfs", metavar="DIR", help="where page caches and local files go (/dev/shm)")
    parser.add_argument("--quick", action="store_true", help="small sizes and one round: whether it works, not how fast")
    for name, (usual, quick, what) in SIZES.items():
        parser.add_argument(f"--{name}", type=int, help=f"{what} ({usual}; quick {quick})")
    for name, (usual, quick, what) in LISTS.items():
        words = [",".join(str(value) for value in values) for values in (usual, quick)]
        parser.add_argument(f"--{name}", type=comma(int), help=f"{what} ({words[0]}; quick {words[1]})")
    parser.add_argument("--only", type=comma(str), default=list(only), help=f"a part of {','.join(SUBJECTS)}")
    parser.add_argument("--rungs", type=comma(str), default=list(rungs), help=f"a part of {','.join(RUNGS)}")
    parser.add_argument("--placements", type=comma(str), default=["one", "two"],
                        help="one: all on one CPU; two: the server on another")
    if parser_more is not None:
        parser_more(parser)
    options = parser.parse_args()
    for name, (usual, quick, _) in {**SIZES, **LISTS}.items():
        key = name.replace("-", "_")
        if getattr(options, key) is None:
            setattr(options, key, quick if options.quick else usual)
            if name == "rounds" and rounds is not None:
                options.rounds = rounds
    if not set(options.only) <= set(SUBJECTS) or not set(options.rungs) <= set(RUNGS):
        parser.error(f"--only is a part of {','.join(SUBJECTS)}, --rungs of {','.join(RUNGS)}")
    if not options.rungs or not options.only or not set(options.placements) <= {"one", "two"}:
        parser.error("nothing to measure")
    if options.pages > options.mib << 8:
        parser.error("--pages is more than --mib holds")
    options.rungs = {name: RUNGS[name] for name in RUNGS if name in options.rungs}
    options.bin, options.programs, options.out = (os.path.abspath(path) for path in
                                                  (options.bin, options.programs, options.out))
    options.server = options.server and os.path.abspath(options.server)
    options.cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(options.cpus) < 2 and "two" in options.placements:
        options.placements = ["one"]
    os.makedirs(options.out, exist_ok=True)
    return options


def end_by_signal(*_):
    """SIGTERM ends it as an interrupt does: with everything stopped and unmounted."""
    raise Stop("ended by a signal")


def tables(bench, subjects):
    """All tables: by placement, then what needs one only, then what is wanted."""
    options, found = bench.options, []
    every = placements(options.cpus, options.placements)
    for at in every:
        for subject in subjects:
            if not subject.once:
                found += subject.tables(bench, at)
    for subject in subjects:
        if subject.once:
            found += subject.tables(bench, every[0])
    return [*found, wanted_table(bench, subjects, every)]


def more_options(parser):
    parser.add_argument("--write", metavar="FILE", help=f"put the tables between {BEGIN} and {END} of FILE")
    parser.add_argument("--peers", action="store_true", help="nbdfuse and sshfs too, on Debian as root")


def main():
    signal.signal(signal.SIGTERM, end_by_signal)
    options = arguments(__doc__, more_options)
    for name in os.listdir(options.out):
        if name.endswith(".svg") or name.startswith("latency-"):
            os.remove(os.path.join(options.out, name))  # of an earlier run, perhaps with other rows
    load_before, begin = os.getloadavg()[0], time.monotonic()
    subjects = [SUBJECTS[name] for name in SUBJECTS if name in options.only]
    if options.peers:
        peers.install()
        subjects.append(peers.Peers())
    bench = Bench(options, options.bin)
    try:
        seconds = measure([bench], subjects, options.rounds)
    finally:
        bench.close()
    heading = (f"Machine: {machine()}\n"
               f"Medians of {options.rounds} round{'s'[:options.rounds > 1]}, the contenders taking turns.")
    if load_before > 0.7:
        heading += f"\nThe machine was not idle when this began (load {load_before:.1f}): the ratios say more than the times."
    text = "\n\n".join([heading, *tables(bench, subjects), *bench.remarks.values()])
    print(text)
    bench.write_csv(os.path.join(options.out, "results.csv"))
    with open(os.path.join(options.out, "tables.txt"), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    if options.write:
        write_into(options.write, text)
    said = figures(bench)
    print(f"\nbench: {time.monotonic() - begin:.0f} s; every round is in {options.out}/results.csv")
    print("bench: seconds of it: " + ", ".join(f"{name} {took:.0f}" for name, took in seconds.items()))
    for line in said:
        print(f"bench: {line}")
    for failure in bench.failures:
        print(f"bench: FAILED: {failure}")
    return 1 if bench.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Stop as stop:
        sys.exit(f"bench: {stop}")
