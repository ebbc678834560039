# A shell's redirections: >, >>, <, <>, >|, noclobber, here-documents, $(<file), loops, pipes, background jobs, sourced and run files.
printf '1\n2\n3\n' > "$N/in"; cat < "$N/in"; echo "$(<"$N/in")"; read -r line < "$N/in"; echo "read $line"
cat >> "$N/in" <<E
four $(wc -l < "$N/in")
E
cat "$N/in"; while read -r l; do echo "[$l]"; done < "$N/in"; mapfile -t lines < "$N/in"; echo ${#lines[@]}
exec 5<> "$N/in"; read -r x <&5; echo "$x"; echo inserted >&5; exec 5>&-; cat "$N/in"
exec 6>> "$N/log"; echo a >&6; (echo b >&6); bash -c 'echo c >&6'; { echo d; echo e; } >&6; exec 6>&-; cat "$N/log"
set -C; (echo x > "$N/in") 2> /dev/null || echo kept; echo clobbered >| "$N/in"; set +C; cat "$N/in"
: > "$N/in"; wc -c < "$N/in"; printf x > "$N/in"; cat "$N/in"; echo; ls "$N/none" > "$N/out" 2>&1 || sed "s,$N,N," "$N/out"
for i in 1 2 3 4; do echo "job $i" >> "$N/jobs" & done; wait; sort -o "$N/jobs" "$N/jobs"; cat "$N/jobs"; (seq 1 1000; seq 1 1000 >&2) > "$N/o" 2> "$N/e"; cmp "$N/o" "$N/e" && echo both
printf 'read -r l; echo "got $l"; cat\n' > "$N/s.sh"; bash "$N/s.sh" < "$N/jobs"; printf 'v=sourced\n' > "$N/v"; . "$N/v"; echo $v
printf '#!/bin/sh\necho "run $1"\n' > "$N/run"; chmod +x "$N/run"; sh "$N/run" by; cat "$N/o" | tee "$N/o2" | tail -1; cmp "$N/o" "$N/o2"; head -c 100000 /dev/zero > "$N/z"; tr '\0' a < "$N/z" | md5sum
dash -c 'while read l; do echo "$l."; done < "$1"; echo more >> "$1"; cat < "$1" | tail -1' dash "$N/log"; seq 1 5 | sh -c 'cat > "$1"; cat "$1"' sh "$N/piped" | tail -1; diff <(cat "$N/log") "$N/log" && echo same
( cd "$N"; echo relative > rel; cat < rel; cat ./rel; . ./v; exec > final; echo last; sh -c 'echo child' ); cat "$N/final"; wc -l < "$N/rel"
