# redis-server, which allocates with jemalloc, with threads of its own, an append-only file and a snapshot by fork.
rm -rf r; mkdir r; ask() { redis-cli -s r/s "$@"; }
coproc redis-server --port 0 --unixsocket "$PWD/r/s" --dir "$PWD/r" --appendonly yes --io-threads 2 --daemonize no
exec 7<&"${COPROC[0]}"; pid=$COPROC_PID; while read -r line <&7; do case $line in *'ready to accept'*) break ;; esac; done
cat <&7 > /dev/null & reader=$!
ask set a 1; for i in 1 2 3; do ask incr a; done; ask eval 'for i = 1, 5000 do redis.call("set", "k" .. i, string.rep("v", i)) end return 5000' 0
ask dbsize; ask save; ask get k7
readlink /proc/$pid/fd/* | sed 's/[0-9][0-9]*//g' | sort -u; cat /proc/$pid/task/*/comm | grep -v jemalloc_bg_thd | sort # jemalloc starts its own when it sees fit
ask shutdown; wait $pid || true; wait $reader || true; ls r | sort
