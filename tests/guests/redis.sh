# redis-server, which allocates with jemalloc, with threads of its own, an append-only file and a snapshot by fork.
rm -rf r; mkdir r; ask() { redis-cli -s r/s "$@"; }
coproc redis-server --port 0 --unixsocket "$PWD/r/s" --dir "$PWD/r" --appendonly yes --io-threads 2 --daemonize no
exec 7<&"${COPROC[0]}"; pid=$COPROC_PID; trap 'kill -9 $pid 2> r/killed || true' EXIT # a step that fails leaves no server behind
while read -r line <&7; do case $line in *'ready to accept'*) break ;; esac; done
cat <&7 > /dev/null & reader=$!
ask set a 1; for i in 1 2 3; do ask incr a; done; ask eval 'for i = 1, 5000 do redis.call("set", "k" .. i, string.rep("v", i)) end return 5000' 0
ask dbsize; ask save; ask get k7
# The connection of the last question, and a thread of jemalloc's, may go while they are listed.
{ readlink /proc/$pid/fd/* || true; } | sed 's/[0-9][0-9]*//g' | grep -v '^socket' | sort -u; { cat /proc/$pid/task/*/comm 2> r/gone || true; } | grep -v jemalloc_bg_thd | sort # jemalloc starts its own when it sees fit
ask shutdown; wait $pid || true; wait $reader || true; ls r | grep -v gone | sort
