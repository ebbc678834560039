# tar, zip, gzip, xz, bzip2, cpio-like pipes: made below $N, read there, unpacked there and elsewhere.
mkdir -p src/sub/empty; seq 1 30000 > src/x; seq 1 3 > src/sub/y; printf '' > src/none; chmod 640 src/x; touch -d '2001-02-03 04:05:06' src/sub/y
tar cf "$N/t.tar" src; tar tf "$N/t.tar" | sort; mkdir "$N/x"; tar xf "$N/t.tar" -C "$N/x"; diff -r src "$N/x/src" && echo tar
stat -c '%a %Y' "$N/x/src/sub/y" "$N/x/src/x" | head -1; stat -c %a "$N/x/src/x"
tar czf "$N/t.tgz" -C "$N/x" src; tar xzf "$N/t.tgz" -O src/x | cmp - src/x; tar cJf "$N/t.txz" -C "$N/x/src" .; tar tJf "$N/t.txz" | sort
tar rf "$N/t.tar" -C "$N/x/src" none; tar uf "$N/t.tar" src/x; tar tf "$N/t.tar" | wc -l; tar df "$N/t.tar" src/sub && echo "no differences"; tar --delete -f "$N/t.tar" src/none none && tar tf "$N/t.tar" | sort -u
tar cf - -C "$N/x" src | tar xf - -C . --one-top-level=piped; diff -r src piped/src && echo piped
tar -C "$N" -cSf - x/src/x | tar tvf - | awk '{print $1, $3, $6}'

(cd "$N/x" && zip -qr ../z.zip src && unzip -l ../z.zip | tail -1 && mkdir ../uz && cd ../uz && unzip -q ../z.zip); diff -r src "$N/uz/src" && echo zip
zip -q "$N/z.zip" src/none && zip -qd "$N/z.zip" src/sub/y && unzip -tq "$N/z.zip" | sed "s,$N,N,"; unzip -p "$N/z.zip" src/x | cmp - src/x

cp src/x "$N/g"; gzip "$N/g"; test -e "$N/g" || gzip -l "$N/g.gz" | awk 'NR == 2 {print $2}'; zcat "$N/g.gz" | cmp - src/x; gunzip "$N/g.gz"; cmp "$N/g" src/x
xz -T2 -k "$N/g"; xz -t "$N/g.xz"; xz -dc "$N/g.xz" | cmp - src/x; rm "$N/g"; unxz "$N/g.xz"; cmp "$N/g" src/x
bzip2 -k "$N/g"; bzcat "$N/g.bz2" | cmp - src/x; zgrep -c 77 "$N/g.bz2" 2>/dev/null || bzcat "$N/g.bz2" | grep -c 77
ls "$N" | sort
