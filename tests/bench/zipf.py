#!/usr/bin/env python3
"""Asks a redis-server for keys of which a few are asked for most: `zipf.py MIB`. Prints key=value; every answer is checked.

The server, and not this program, is under the library that REDIS_PRELOAD names.
"""

import itertools
import os
import random
import socket
import subprocess
import sys
import tempfile
import time

# Bytes of a value, and what a key takes with it; the exponent of the law; requests, and connections with one each, as redis-benchmark has
# them; requests at once where it is not measured.
VALUE, EACH, EXPONENT, REQUESTS, CONNECTIONS, AHEAD = 1000, 1150, 0.99, 100_000, 50, 32


def request(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def value_of(key):
    return (b"%d:" % key).ljust(VALUE, b"v")


class Client:
    """A connection that waits for the server to be there."""

    def __init__(self, path):
        until = time.monotonic() + 20
        while True:
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(path)
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
        self.answers = self.socket.makefile("rb", buffering=1 << 16)

    def ask(self, requests, answer):
        """Sends the requests, so many at a time, and hands each to `answer` to read what comes for it."""
        requests = iter(requests)
        while part := list(itertools.islice(requests, AHEAD)):
            self.socket.sendall(b"".join(bytes for bytes, _ in part))
            for _, key in part:
                answer(key)

    def stored(self, _):
        assert self.answers.readline() == b"+OK\r\n", "not stored"

    def loaded(self, key):
        assert self.answers.readline() == b"$%d\r\n" % VALUE, f"key {key} is gone"
        assert self.answers.read(VALUE + 2)[:-2] == value_of(key), f"key {key} is another"


def main():
    keys = (int(sys.argv[1]) << 20) // EACH
    environment = dict(os.environ)
    if preload := environment.pop("REDIS_PRELOAD", None):
        environment["LD_PRELOAD"] = preload
    with tempfile.TemporaryDirectory() as place:
        path = os.path.join(place, "redis")
        server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--dir", place, "--save", ""],
                                  env=environment, stdout=subprocess.DEVNULL)
        try:
            client = Client(path)
            client.ask(((request(b"SET", b"key:%d" % key, value_of(key)), key) for key in range(keys)), client.stored)
            dice = random.Random(1)
            order = dice.sample(range(keys), keys)
            weights = list(itertools.accumulate(1 / (rank + 1) ** EXPONENT for rank in range(keys)))
            chosen = dice.choices(order, cum_weights=weights, k=REQUESTS)
            clients = [Client(path) for _ in range(CONNECTIONS)]
            asked = [(request(b"GET", b"key:%d" % key), key) for key in chosen]
            began = time.monotonic()
            for at in range(0, REQUESTS, CONNECTIONS):
                part = asked[at:at + CONNECTIONS]
                for (bytes, _), one in zip(part, clients):
                    one.socket.sendall(bytes)
                for (_, key), one in zip(part, clients):
                    one.loaded(key)
            print(f"zipf_ms={(time.monotonic() - began) * 1e3:.1f}")
            client.ask(((request(b"GET", b"key:%d" % key), key) for key in range(keys)), client.loaded)
        finally:
            server.terminate()
            server.wait()


main()
