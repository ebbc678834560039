#!/usr/bin/env python3
"""Two revisions, measured by turns: `make bench-ab BASE=rev` calls it.

The base is built from a git worktree below the target directory. In each round every row is measured with both, by turns
the one first and the other; the figure is the median of the rounds' ratios, beside it the quartiles. A difference is within
noise where more than one round in ten says the contrary, or where a program that is the same on both sides, as the floors are,
differs by as much in the same placement and test.
"""

import os
import shutil
import signal
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True  # nothing is left in the tree

# pylint: disable=wrong-import-position
from bench import SUBJECTS, arguments, end_by_signal
from report import label, machine, table
from runner import Bench, Stop, measure

ROUNDS = 7
ROWS = ("cold", "seq", "msync", "msync1", "calls")
FILES = ("libnetmem.so", "netmem-server", "netmem")
PACKAGES = ("netmem-shim", "netmem-server", "netmem-cli")
ROUNDS_LEAST = 3  # quartiles of fewer say nothing


def git(*words):
    done = subprocess.run(["git", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Stop(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def build(revision, where):
    """A directory with the files of a revision, built there unless they are there."""
    commit = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") if revision else ""
    if not commit:
        raise Stop(f"no such revision: {revision}")
    out, tree, target = (os.path.join(where, name) for name in (f"bin-{commit[:12]}", f"tree-{commit[:12]}", "target"))
    if all(os.path.exists(os.path.join(out, file)) for file in FILES):
        return out
    os.makedirs(where, exist_ok=True)
    git("worktree", "add", "--quiet", "--force", "--detach", tree, commit)
    try:
        command = [os.environ.get("CARGO", "cargo"), "build", "--release", "--target-dir", target]
        for package in PACKAGES:
            command += ["-p", package]
        if subprocess.run(command, cwd=tree, check=False).returncode != 0:
            raise Stop(f"{revision} does not build")
        os.makedirs(out, exist_ok=True)
        for file in FILES:
            shutil.copy2(os.path.join(target, "release", file), os.path.join(out, file))
    finally:
        git("worktree", "remove", "--force", tree)
    return out


def higher_is_better(metric):
    return metric in ("rate", "commit", "first", "second")


def same_program(contender):
    """What has nothing of either revision in it."""
    return contender.startswith("floor") or contender in ("without", "local file", "tmpfs")


def agree(pairs):
    """Whether nearly all rounds say that one side is the faster. Of seven that mean nothing, all do once in 64 times."""
    contrary = min(sum(pair > 1 for pair in pairs), sum(pair < 1 for pair in pairs))
    return contrary <= len(pairs) // 10


def ratios(base, change):
    """For everything that both measured: the rounds' ratios of this tree over the base."""
    found = {}
    for key, ours in change.samples.items():
        pairs = [b / a for a, b in zip(base.samples.get(key, []), ours) if a > 0]
        if len(pairs) > 1:
            found[key] = pairs
    return found


def rows(base, change):
    """Median and quartiles of the rounds' ratios, and what they say."""
    found, noise, every = [], {}, ratios(base, change)
    for (placement, test, contender, _), pairs in every.items():
        if same_program(contender):
            differs = abs(statistics.median(pairs) - 1)
            noise[placement, test] = max(differs, noise.get((placement, test), 0))
    for key, pairs in every.items():
        placement, test, contender, metric = key
        low, middle, high = statistics.quantiles(pairs, n=4, method="inclusive")
        verdict = "within noise"
        if same_program(contender):
            verdict = "the same program"
        elif agree(pairs) and abs(middle - 1) > noise.get((placement, test), 0):
            verdict = "faster" if (middle > 1) == higher_is_better(metric) else "slower"
        theirs, ours = (statistics.median(bench.samples[key]) for bench in (base, change))
        found.append([f"{test}, {label(contender)}, {metric}", placement, f"{theirs:,.1f}", f"{ours:,.1f}", f"{middle:.3f}",
                      f"{low:.3f} to {high:.3f}", verdict])
    return found


def more_options(parser):
    parser.add_argument("--base", required=True, help="the revision to compare with")
    parser.add_argument("--base-bin", metavar="DIR", help="its files, if they are built: nothing is built then")


def main():
    signal.signal(signal.SIGTERM, end_by_signal)
    options = arguments(__doc__, more_options, ROWS, ("uffd",), ROUNDS)
    if options.rounds < ROUNDS_LEAST and not options.quick:
        raise Stop(f"--rounds {ROUNDS_LEAST} at least: fewer have no quartiles")
    base_files = os.path.abspath(options.base_bin) if options.base_bin else build(options.base, options.out)
    subjects = [SUBJECTS[name] for name in SUBJECTS if name in options.only]
    benches = []
    try:
        benches += [Bench(options, base_files), Bench(options, options.bin)]
        measure(benches, subjects, options.rounds)
    finally:
        for bench in benches:
            bench.close()
    base, change = benches
    print(f"Machine: {machine()}\n")
    print(table(f"This tree against {options.base}, {options.rounds} rounds by turns; a ratio is this tree over the base",
                ["", "CPUs", "base", "this", "ratio", "quartiles", ""], rows(base, change)))
    for name, bench in (("base", base), ("this", change)):
        bench.write_csv(os.path.join(options.out, f"{name}.csv"))
        for remark in bench.remarks.values():
            print(f"bench: {name}: {remark}")
        for failure in bench.failures:
            print(f"bench: FAILED: {name}: {failure}")
    return 1 if base.failures or change.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Stop as stop:
        sys.exit(f"bench-ab: {stop}")
