# sed -i, awk, ed, vim, perl -i, patch: files are replaced, appended to and rewritten in place.
seq 1 5000 > a; cp a "$N/a"
sed -i 's/1/one/' "$N/a"; md5sum < "$N/a"; sed -i.orig 2,100d "$N/a"; wc -l < "$N/a"; wc -l < "$N/a.orig"; sed -n '$p' "$N/a"; sed -e 1w"$N/first" -n "$N/a"; cat "$N/first"
awk -v out="$N/awk" '{s += length($0); print s > out} END {close(out); while ((getline line < out) > 0) n++; print n, s >> out}' "$N/a"; tail -1 "$N/awk"
printf '%s\n' 1,10d '$a' 'the end' . w q | ed -s "$N/awk"; tail -1 "$N/awk"; wc -l < "$N/awk"
vim -u NONE -es -c '%s/7/seven/e' -c wq "$N/a" < /dev/null; md5sum < "$N/a"
vim -u NONE -N -es -c 'set backup writebackup swapfile undofile' -c '1,2d' -c wq "$N/a" < /dev/null; wc -l < "$N/a"
perl -pi -e 's/seven/7/' "$N/a"; md5sum < "$N/a"; perl -i.bak -ne 'print if $. % 2' "$N/a"; wc -l < "$N/a" && wc -l < "$N/a.bak"
diff -u "$N/a.bak" "$N/a" > "$N/d" || true; cp "$N/a.bak" "$N/p"; patch -s "$N/p" "$N/d" && cmp "$N/p" "$N/a" && echo patched
ls "$N" | sort
