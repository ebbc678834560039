#!/bin/bash
# Records which pages of a mapped file real programs touch, in order, into tests/traces/*.pages: 16 bits a touch, little-endian. What
# shim/src/pager/policy_tests.rs plays. Wants valgrind, sqlite3, python3, gcc and liblmdb-dev, and some minutes; not part of any test.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cc -O2 -o touches "$here/tests/tools/touches.c"
cc -O2 -o lookups "$here/tests/tools/lookups.c" -llmdb -lm

# record NAME FILE COMMAND...
record() {
  local name=$1 file=$2
  shift 2
  valgrind --tool=lackey --trace-mem=yes --log-fd=9 "$@" 9>&1 > /dev/null 2>&1 | ./touches "$file" > "$name.txt"
  python3 -c 'import struct, sys
pages = [int(line) for line in sys.stdin]
sys.stdout.buffer.write(struct.pack(f"<{len(pages)}H", *pages))' < "$name.txt" > "$here/tests/traces/$name.pages"
  echo "$name: $(wc -l < "$name.txt") touches of $(sort -u "$name.txt" | wc -l) pages"
}

# 20,000 rows in 5 MB, with an index: looked up by name as a law of Zipf has it, with scans of all; and joined, once with a third of them in
# a loop that is small, once with all of them in no order.
python3 - <<'PYTHON'
import bisect, itertools, random
random.seed(1)
with open("make.sql", "w") as out:
    out.write("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, rest BLOB);\nBEGIN;\n")
    for i in range(20000):
        out.write(f"INSERT INTO t VALUES({i},'name{(i * 7919) % 20000:06d}',zeroblob({random.randint(50, 350)}));\n")
    out.write("COMMIT;\nCREATE INDEX n ON t(name);\n")
sums = list(itertools.accumulate(1 / (i + 1) for i in range(20000)))
order = random.sample(range(20000), 20000)
with open("sqlite.sql", "w") as out:
    out.write("PRAGMA mmap_size=1000000000;\nPRAGMA cache_size=10;\n")
    for i in range(4000):
        if i % 1500 == 700:
            out.write("SELECT count(*) FROM t WHERE length(rest)>100;\n")
        name = order[bisect.bisect(sums, random.random() * sums[-1])]
        out.write(f"SELECT length(rest) FROM t WHERE name='name{name:06d}';\n")
PYTHON
cat > join.sql <<'SQL'
PRAGMA mmap_size=1000000000;
PRAGMA cache_size=10;
SELECT sum(length(b.rest)) FROM t a JOIN t b ON b.id=(a.id*7919)%4000 WHERE a.id%3=0;
SELECT sum(length(b.rest)) FROM t a JOIN t b ON b.name='name'||substr('000000'||((a.id*31)%20000),-6) WHERE a.id<2500;
SQL
sqlite3 db < make.sql
record sqlite "$work/db" sqlite3 "$work/db" ".read sqlite.sql"
record join "$work/db" sqlite3 "$work/db" ".read join.sql"
./lookups "$work/lmdb" fill
record lmdb "$work/lmdb" ./lookups "$work/lmdb"
