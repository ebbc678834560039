# rsync: into, out of and inside, whole and in place, with checksums, deletions and partial files.
mkdir -p src/sub; seq 1 100000 > src/x; seq 1 3 > src/sub/y; touch -d '2001-02-03 04:05:06' src/sub/y
rsync -a src/ "$N/r/"; diff -r src "$N/r" && stat -c '%Y %a' "$N/r/sub/y"
rsync -a "$N/r/" back/; diff -r src back && echo "out of it"
sed -i 5000s/5/five/ src/x; echo more >> src/x
rsync -a --inplace --no-whole-file src/ "$N/r/"; cmp src/x "$N/r/x" && echo "in place"
sed -i 6000s/6/six/ src/x; rsync -a --no-whole-file src/ "$N/r/"; cmp src/x "$N/r/x" && echo "by differences"
rsync -ac "$N/r/" "$N/r2/"; diff -r "$N/r" "$N/r2" && echo inside
rm src/sub/y; rsync -a --delete --sparse src/ "$N/r2/"; diff -r src "$N/r2" && echo "with deletions"
rsync -a --append-verify src/ "$N/r3/"; echo tail >> src/x; rsync -a --append-verify src/ "$N/r3/"; diff -r src "$N/r3" && echo appended
rsync -ani --checksum src/ "$N/r3/" | wc -l; rsync --list-only "$N/r3/" | awk '{print $2, $5}'; find "$N" -name '.*' | wc -l
