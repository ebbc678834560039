#!/usr/bin/env python3
"""Sorts random numbers with numpy: `sort.py MIB`. Prints key=value; every result is checked."""

import sys
import time

import numpy

COUNT = int(sys.argv[1]) << 17
VALUES = numpy.random.default_rng(1).integers(0, 1 << 60, COUNT, dtype=numpy.int64)
TOTAL = int(VALUES.sum())
BEGAN = time.monotonic()
VALUES.sort()
print(f"sort_ms={(time.monotonic() - BEGAN) * 1e3:.1f}")
assert int(VALUES.sum()) == TOTAL and bool((VALUES[1:] >= VALUES[:-1]).all()), "a wrong order"
