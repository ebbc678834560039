"""The figures: SVG files, drawn by gnuplot.

Owns: what they show. Called by: bench.py. Must not: fail because there is no gnuplot.
"""

import os
import shutil
import subprocess

from faults import THREADS
from report import label
from runner import placements


def block(name, points):
    """Data inside a gnuplot script."""
    return "\n".join([f"${name} << END", *(" ".join(f"{value:g}" for value in point) for point in points), "END"])


def draw(path, settings, curves):
    """One figure. A curve is a title and points."""
    script = [f"set terminal svg noenhanced size 900,480 background 'white'; set output '{path}'; "
              "set key outside right; set grid", settings]
    script += [block(f"d{i}", points) for i, (_, points) in enumerate(curves)]
    style = "linespoints" if max(len(points) for _, points in curves) < 20 else "lines"
    plots = [f"$d{i} using 1:2 with {style} linewidth 2 title \"{title}\"" for i, (title, _) in enumerate(curves)]
    script.append("plot " + ", ".join(plots))
    done = subprocess.run(["gnuplot"], input="\n".join(script), stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    if done.returncode != 0 or not os.path.exists(path):
        return f"{os.path.basename(path)}: gnuplot: {done.stderr.strip()}"
    return None


def latencies(bench, at):
    """The share of touches that took at most so long, of the last round."""
    curves = []
    for name in ("floor_rtt", "floor_sigbus", "floor_uffd", *bench.rungs):
        path = os.path.join(bench.options.out, f"latency-{at.name}-{name}.txt")
        if not os.path.exists(path):
            continue
        with open(path, encoding="ascii") as file:
            values = sorted(int(line) for line in file)
        shares = [i / 200 for i in range(1, 200)] + [0.996, 0.997, 0.998, 0.999]
        curves.append((label(name), [(values[min(int(share * len(values)), len(values) - 1)] / 1e3, share) for share in shares]))
    return curves


def by_number(bench, at, test, names, metric, numbers):
    """A metric of subjects whose tests are called NAME NUMBER."""
    curves = []
    for name in names:
        points = [(number, bench.get(at, f"{test} {number}", name, metric)) for number in numbers]
        points = [point for point in points if point[1] is not None]
        if points:
            curves.append((label(name), points))
    return curves


def figures(bench):
    """Draws what was measured; lines that say what was drawn, or why not."""
    if shutil.which("gnuplot") is None:
        return ["no figures were drawn: there is no gnuplot (apt-get install gnuplot-nox)"]
    said = []
    for at in placements(bench.options.cpus, bench.options.placements):
        wanted = [
            ("latency", "set logscale x; set xlabel 'microseconds'; set ylabel 'share of first touches'; set yrange [0:1]",
             latencies(bench, at)),
            ("threads", "set xlabel 'faulting threads'; set ylabel 'first touches a second'; set yrange [0:*]",
             by_number(bench, at, "threads", ("floor_threads", "floor_sigbus", *bench.rungs), "rate", THREADS)),
            ("growth-touches", "set logscale x 2; set xlabel 'MiB of the region'; set ylabel 'first touches a second'; "
             "set yrange [0:*]", by_number(bench, at, "growth", ("floor_uffd", *bench.rungs), "rate", bench.options.growth)),
            ("growth-commits", "set logscale x 2; set xlabel 'MiB of the region'; set ylabel 'MB/s committed'; set yrange [0:*]",
             by_number(bench, at, "growth", bench.rungs, "commit", bench.options.growth)),
            ("connections", "set logscale x; set xlabel 'connections'; set ylabel 'fetches a second'; set yrange [0:*]",
             by_number(bench, at, "server", ("floor_epoll", "netmem-server"), "rate", bench.options.connections)),
        ]
        for name, settings, curves in wanted:
            if not curves:
                continue
            path = os.path.join(bench.options.out, f"{name}-{at.name}.svg")
            failed = draw(path, f"set title \"{at.text}\"; {settings}", curves)
            if failed:
                bench.failures.append(failed)
            else:
                said.append(f"figure: {path}")
    return said
