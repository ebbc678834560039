"""Figures as text: tables, the machine, the part of a document that is measured.

Owns: how a table looks, what is wanted of a figure. Called by: the subjects, bench.py. Must not: measure.
"""

import os
import platform

from runner import RUNGS, Stop

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def shown(value, digits=1):
    return "-" if value is None else f"{value:,.{digits}f}"


def over(value, floor):
    """A ratio, or None."""
    return value / floor if value is not None and floor else None


def ratio(value, floor):
    return shown(over(value, floor), 2)


def scaled(value, by):
    return None if value is None else value / by


def micro(value, digits=1):
    return shown(scaled(value, 1e3), digits)


def milli(value, digits=1):
    return shown(scaled(value, 1e6), digits)


def label(contender):
    return f"netmem, {contender}" if contender in RUNGS else contender


def table(title, columns, rows):
    """Text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = [title, ""]
    for row in [columns, *rows]:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


class Subject:
    """Something that is measured, with its floor beside it."""

    name = ""
    once = False  # no server takes part: one placement is enough

    def measure(self, bench):
        """One round in the placement bench.at."""
        raise NotImplementedError

    def tables(self, bench, at):
        """The tables of a placement."""
        raise NotImplementedError

    def wanted(self, bench, at):
        """What is wanted: (what, "at most" or "at least", limit, unit, what it is)."""
        return []


def wanted_table(bench, subjects, at_all):
    """Every figure that has a limit, in each placement. One that misses it is marked."""
    rows, cells = [], {}
    for subject in subjects:
        for at in at_all[:1] if subject.once else at_all:
            for what, sense, limit, unit, value in subject.wanted(bench, at):
                key = (what, sense, limit, unit)
                if key not in cells:
                    cells[key] = {}
                    rows.append(key)
                cells[key][at.name] = value
    lines = []
    for what, sense, limit, unit in rows:
        line = [what, f"{sense} {limit:,g}{unit}"]
        for at in at_all:
            if at.name not in cells[what, sense, limit, unit]:
                line.append("")
                continue
            value = cells[what, sense, limit, unit][at.name]
            missed = value is not None and (value > limit if sense == "at most" else value < limit)
            digits = 0 if abs(limit) >= 20 or limit == 0 else 2
            line.append(shown(value, digits) + (" missed" if missed else "       " if value is not None else ""))
        lines.append(line)
    names = {"one": "one CPU       ", "two": "two CPUs       "}
    return table("What is wanted, and what is", ["", "wanted", *(names[at.name] for at in at_all)], lines)


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
    if document.count(BEGIN) != 1 or document.count(END) != 1:
        raise Stop(f"{path} has no line {BEGIN} and {END}, each once")
    before, rest = document.split(BEGIN)
    after = rest.split(END)[1]
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n```text\n{text}\n```\n{END}{after}")
