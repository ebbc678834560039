"""The same work on what people use today: nbdkit's memory through nbdfuse, and a file through sshfs, over loopback.

Owns: their packages, servers, mounts and keys. Called by: bench.py --peers. Must not: leave a mount, a process, a key or a
setting behind; use any port or configuration but its own.
"""

import os
import shutil
import socket
import subprocess
import time

from report import Subject, label, micro, over, ratio, shown, table
from runner import Stop

PACKAGES = {"nbdkit": "nbdkit", "nbdfuse": "libnbd-bin", "sshfs": "sshfs", "sshd": "openssh-server", "ssh": "openssh-client",
            "fusermount3": "fuse3"}
READY_SECONDS_MAX = 20
PEERS = ("nbdfuse + nbdkit memory", "sshfs")
# How many times faster a first touch is to be, by placement.
TIMES = {"one": (6, 15), "two": (2, 5)}


def found(program):
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def install():
    """Installs what is missing. No service is started by it."""
    missing = sorted({package for program, package in PACKAGES.items() if found(program) is None})
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Stop(f"needs the Debian packages {' '.join(missing)}, and root to install them")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run(["apt-get", "-qq", *command], env=environment, stdout=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            raise Stop(f"apt-get {command[0]}: status {done.returncode}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, child, happened):
    """Waits until something is there, as long as its process lives."""
    limit = time.monotonic() + READY_SECONDS_MAX
    while not happened():
        if child.poll() is not None or time.monotonic() > limit:
            raise Stop(f"{what} did not get ready")
        time.sleep(0.01)


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Mount:
    """A mount for one run: its cache begins empty, and ends with it."""

    def __init__(self, bench, directory, file, command):
        self.bench, self.directory, self.file = bench, directory, os.path.join(directory, file)
        self.command = command

    def __enter__(self):
        self.bench.start_server(self.directory, self.command, cpu=self.bench.at.cpu)
        child = self.bench.servers[self.directory]
        until(os.path.basename(self.command[0]), child, lambda: os.path.ismount(self.directory))
        return self.file

    def __exit__(self, *_):
        self.end()

    def end(self):
        """Unmounts, and ends its process; also after a failure, when nothing may be there any more."""
        child = self.bench.servers.pop(self.directory, None)
        for words in (["-u"], ["-u", "-z"]):
            if os.path.ismount(self.directory):
                subprocess.run([found("fusermount3"), *words, self.directory], stderr=subprocess.DEVNULL, check=False)
        if child is None:
            return
        try:
            child.wait(5)  # an unmounted file system ends by itself
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()


class Peers(Subject):
    """First touches and a scan of what nbdfuse and sshfs show."""

    name = "peers"

    def __init__(self):
        self.mounts = {}

    def prepare(self, bench):
        """Starts both servers in a placement, with the same pages as everybody."""
        place = os.path.join(bench.place, f"peers-{bench.at.name}")
        file = os.path.join(bench.place, "scan")
        os.mkdir(place, 0o700)
        if not os.path.exists(file) and bench.run(bench.program(
                "fault_bench", file, f"{bench.options.scan_mib}M", "fill")) is None:
            raise Stop(bench.failures[-1])
        self.mounts = {PEERS[0]: self.nbd(bench, place), PEERS[1]: self.ssh(bench, place, file)}
        for mount in self.mounts.values():
            bench.undo.append(mount.end)
        bench.undo.append(self.mounts.clear)
        with self.mounts[PEERS[0]] as target, open(file, "rb") as source, open(target, "r+b") as out:
            shutil.copyfileobj(source, out, 1 << 20)

    def nbd(self, bench, place):
        port, directory = free_port(), os.path.join(place, "nbd")
        os.mkdir(directory)
        bench.start_server("nbdkit", [found("nbdkit"), "-f", "-i", "127.0.0.1", "-p", str(port), "memory",
                                      f"{bench.options.scan_mib}M"])
        until("nbdkit", bench.servers["nbdkit"], lambda: answers(port))
        return Mount(bench, directory, "disk", [found("nbdfuse"), f"{directory}/disk", f"nbd://127.0.0.1:{port}/"])

    def ssh(self, bench, place, file):
        port, directory, key, host_key = free_port(), *(os.path.join(place, name) for name in ("ssh", "key", "host"))
        os.mkdir(directory)
        for each in (key, host_key):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", each], check=True)
        with open(f"{host_key}.pub", encoding="ascii") as public:
            kind, value = public.read().split()[:2]
        with open(f"{place}/known", "w", encoding="ascii") as known:
            known.write(f"[127.0.0.1]:{port} {kind} {value}\n")
        with open(f"{place}/sshd", "w", encoding="ascii") as config:
            config.write(f"ListenAddress 127.0.0.1:{port}\nHostKey {host_key}\nAuthorizedKeysFile {key}.pub\nStrictModes no\n"
                         "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPidFile none\n"
                         "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n")
        # sshd wants this one directory, which Debian's service makes when it is started.
        if os.geteuid() == 0 and not os.path.exists("/run/sshd"):
            os.mkdir("/run/sshd", 0o755)
            bench.undo.insert(0, lambda: os.rmdir("/run/sshd"))
        bench.start_server("sshd", [found("sshd"), "-D", "-e", "-f", f"{place}/sshd", "-E", f"{place}/sshd.log"])
        until("sshd", bench.servers["sshd"], lambda: answers(port))
        command = f"ssh -F none -i {key} -o IdentitiesOnly=yes -o UserKnownHostsFile={place}/known"
        user = subprocess.run(["id", "-un"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        return Mount(bench, directory, os.path.basename(file), [
            found("sshfs"), "-f", "-p", str(port), "-o", f"ssh_command={command}",
            f"{user}@127.0.0.1:{os.path.dirname(file)}", directory])

    def measure(self, bench):
        if not self.mounts:
            self.prepare(bench)
        for name, mount in self.mounts.items():
            with mount as file:
                values = bench.run(bench.program("fault_bench", file, bench.options.pages * 4096, "rand"))
                bench.note("peers", name, values, p50="touch_p50_ns", p99="touch_p99_ns")
            with mount as file:
                values = bench.run(bench.program("fault_bench", file, f"{bench.options.scan_mib}M", "seq"))
                bench.note("peers", name, values, rate="mb_per_s")

    def tables(self, bench, at):
        def get(test, name, metric):
            return bench.get(at, test, name, metric)

        ours, rows = bench.default, []
        for name, cold, seq in (("floor_uffd, floor_seq", ("cold", "floor_uffd"), ("seq", "floor_seq")),
                                (label(ours), ("cold", ours), ("seq", ours)),
                                *((peer, ("peers", peer), ("peers", peer)) for peer in PEERS)):
            p50, p99, rate = get(*cold, "p50"), get(*cold, "p99"), get(*seq, "rate")
            rows.append([name, micro(p50), micro(p99), ratio(p50, get("cold", ours, "p50")), shown(rate, 0),
                         ratio(rate, get("seq", ours, "rate"))])
        title = (f"Beside others: random first touches ({bench.options.pages} pages, MADV_RANDOM) and a scan of "
                 f"{bench.options.scan_mib} MiB; {at.text}")
        return [table(title, ["", "p50 µs", "p99 µs", "× netmem", "scan MB/s", "× netmem"], rows)]

    def wanted(self, bench, at):
        ours = bench.default
        for peer, times in zip(PEERS, TIMES[at.name]):
            value = over(bench.get(at, "peers", peer, "p50"), bench.get(at, "cold", ours, "p50"))
            yield f"first touch, {ours}, faster than {peer}", "at least", times, " ×", value
        value = over(bench.get(at, "seq", ours, "rate"), bench.get(at, "peers", PEERS[0], "rate"))
        yield f"first touch in order, {ours}, faster than {PEERS[0]}", "at least", 1.5, " ×", value
