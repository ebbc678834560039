"""The kernel's own swap, to a file, for a program in a group with a limit of memory.

Owns: the group and the swap file, which are gone at the end. Called by: far.py. Must not: touch swap that is there already.
"""

import contextlib
import os
import shutil
import subprocess

# Version 1 of control groups, then version 2: where groups are made, and the file of the limit.
KINDS = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
NAME = "netmem-bench"


def within(procs, command):
    """The command, in the group from its start; it says nothing if the kernel finds no page to swap out, and kills it."""
    return ["sh", "-c", f'echo $$ > {procs} && {{ "$@" || true; }}', "sh", *command]


@contextlib.contextmanager
def limited(directory, limit):
    """The group's list of processes, or None and why this machine does not allow it."""
    place, name = os.path.join(directory, "swapfile"), None
    try:
        free = shutil.disk_usage(directory).free
        if free < 8 * limit:
            raise OSError("no room for a swap file")
        with open(place, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            os.posix_fallocate(file.fileno(), 0, 1 << 30)
        for command in (["mkswap", place], ["swapon", place]):
            subprocess.run(command, check=True, capture_output=True)
        for root, knob in KINDS:
            if not os.path.exists(os.path.join(root, "cgroup.procs")):
                continue
            name = os.path.join(root, NAME)
            os.makedirs(name, exist_ok=True)
            with contextlib.suppress(OSError), open(os.path.join(name, knob), "w", encoding="ascii") as file:
                file.write(str(limit))
                break
        else:
            raise OSError("no group with a limit of memory")
        yield os.path.join(name, "cgroup.procs"), None
    except (OSError, subprocess.CalledProcessError) as error:
        yield None, str(error)
    finally:
        subprocess.run(["swapoff", place], check=False, capture_output=True)
        with contextlib.suppress(OSError):
            os.remove(place)
        if name:
            with contextlib.suppress(OSError):
                os.rmdir(name)
