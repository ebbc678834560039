# sort with little memory: its temporary files lie below $N, and so do its input and its output.
mkdir "$N/tmp"; seq 1 60000 | awk '{print ($1 * 7919) % 60013, $1}' > a; cp a "$N/a"
sort -S 100k -T "$N/tmp" a | md5sum
sort -S 200k --parallel=2 -T "$N/tmp" -o "$N/sorted" "$N/a"; md5sum < "$N/sorted"
sort -n -S 100k -T "$N/tmp" -o "$N/a" "$N/a"; head -3 "$N/a"; sort -nc "$N/a" && echo ordered
TMPDIR=$N/tmp sort -u -k1,1n -S 400k --compress-program=gzip "$N/a" | md5sum
sort -m "$N/sorted" "$N/sorted" | uniq -c | awk '$1 != 2' | wc -l; join "$N/sorted" "$N/sorted" | wc -l; ls "$N/tmp" | wc -l
