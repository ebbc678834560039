# cp, dd, cmp, mv, install, truncate, split, tee, shred, sha256sum: the bytes are the bytes, whichever side they lie on.
seq 1 20000 > a
for how in --sparse=auto --sparse=always --sparse=never --reflink=auto --attributes-only; do
    rm -f "$N/copy" back
    cp $how a "$N/copy"; cp $how "$N/copy" back; cp $how "$N/copy" "$N/copy2"
    stat -c "$how %s" "$N/copy" back "$N/copy2" | sed "s,/.*/,,"
    [ $how = --attributes-only ] || { cmp a "$N/copy"; cmp a back; cmp a "$N/copy2"; }
    rm "$N/copy2"
done
cp --reflink=always a "$N/reflink" 2>/dev/null && echo reflinked || echo "no reflink"
rm -f "$N/reflink"
truncate -s 3M sparse; printf end >> sparse; printf x | dd of=sparse conv=notrunc bs=1 seek=1500000 status=none
cp --sparse=auto sparse "$N/sparse"; cmp sparse "$N/sparse"; cp --sparse=always "$N/sparse" sparse2; cmp sparse sparse2
cp -a a "$N/preserved"; [ "$(stat -c '%Y %a' a)" = "$(stat -c '%Y %a' "$N/preserved")" ] && echo "cp -a keeps times and mode"

dd if=a of="$N/dd" bs=4k conv=fsync status=none; cmp a "$N/dd"
dd if=a of="$N/dd" bs=64k oflag=append conv=notrunc status=none; cat a a | cmp - "$N/dd"
dd if=a of="$N/direct" bs=4096 count=5 oflag=direct status=none; cmp -n 20480 a "$N/direct"; stat -c %s "$N/direct"
dd if="$N/direct" bs=4096 iflag=direct status=none | cmp - "$N/direct"
dd if=a of="$N/dd" bs=1000 skip=3 seek=7 count=2 conv=notrunc,fdatasync status=none
dd if=a of="$N/sync" bs=512 count=3 oflag=sync,dsync status=none; stat -c %s "$N/sync"
dd if="$N/dd" bs=7777 count=9 2>/dev/null | sha256sum; sha256sum < "$N/dd"; b2sum < "$N/dd"

mv "$N/dd" "$N/moved"; mv "$N/moved" .; sha256sum < moved; mv moved "$N/in"; sha256sum < "$N/in"; ls -I N; ls "$N"
mkdir "$N/dir" && mv "$N/in" "$N/dir" && mv "$N/dir" "$N/other" && ls "$N/other" && mv "$N/other" . && ls other && mv other "$N/"
sha256sum < "$N/other/in"; mv -n a "$N/copy" 2>/dev/null || true; test -f a && echo "mv -n left it"

install -m 640 -D a "$N/deep/er/installed"; stat -c "%a %s" "$N/deep/er/installed"
truncate -s 5000 "$N/copy"; truncate -s +100 "$N/copy"; truncate -r a "$N/back"; stat -c %s "$N/copy" "$N/back"; tail -c 3 "$N/copy" | od -c
split -n 4 a "$N/part."; cat "$N"/part.* | cmp - a; split -b 30k "$N/preserved" "$N/byte."; cat "$N"/byte.* | cmp - a; csplit -sf "$N/c." a 100 2000; wc -l < "$N/c.01"
echo one | tee "$N/t1" "$N/t2"; echo two | tee -a "$N/t1"; cat "$N/t1" "$N/t2"; tac "$N/preserved" | tail -1; paste "$N/t1" "$N/t2"; comm "$N/t1" "$N/t2"; shuf -i 1-50 -o "$N/shuf"; sort -n "$N/shuf" | md5sum
tail -c +100000 "$N/preserved" | md5sum; head -c -1000 "$N/preserved" | md5sum; od -A d -t x1 -j 8190 -N 6 "$N/preserved"; wc "$N/preserved" | sed "s,$N,N,"; nl "$N/t1"; cksum < "$N/preserved"
shred -n 1 -u "$N/preserved"; test -e "$N/preserved" || echo shredded
sync "$N/copy" && sync -f "$N/copy" && sync -d "$N/copy" && echo synced
