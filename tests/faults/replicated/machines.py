"""Machines on one network: network namespaces that nobody has to remove.

A namespace has no name. It lives as long as a process in it does, so that nothing is left of it when a test
is killed: `tests/process_guard.py` ends the processes. One more namespace holds the switch; a machine is cut
off by taking its port off the switch, whereupon packets vanish and connections stay as they are. Needs root.

`entered` moves the calling thread: what it starts or connects meanwhile is on that machine.
"""

from __future__ import annotations

import ctypes
import subprocess
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import wait_until

CLONE_NEWNET = 0x40000000
NETWORK = "192.0.2"  # for documentation (RFC 5737): no network in the world has these addresses
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Machine:
    """An address, and the namespace that has it; without one it is the machine that we run on."""

    address: str = "127.0.0.1"
    holder: subprocess.Popen | None = None

    def entered(self):
        """Within it, this thread is there."""
        return nullcontext() if self.holder is None else _entered(self.holder.pid)


@contextmanager
def _entered(pid):
    with Path("/proc/thread-self/ns/net").open() as home, Path(f"/proc/{pid}/ns/net").open() as there:
        _move(there)
        try:
            yield
        finally:
            _move(home)


def _move(namespace):
    if _libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Network:
    """Some machines and the switch between them."""

    def __init__(self, count):
        self._switch = _hold()
        self.machines = [Machine(f"{NETWORK}.{number + 1}", _hold()) for number in range(count)]
        with _entered(self._switch.pid):
            _ip("link", "add", "switch", "type", "bridge", "forward_delay", "0")
            _ip("link", "set", "switch", "up")
            for number, machine in enumerate(self.machines):
                peer = ("peer", "name", "eth0", "netns", str(machine.holder.pid))
                _ip("link", "add", f"port{number}", "type", "veth", *peer)
                _ip("link", "set", f"port{number}", "master", "switch", "up")
        for machine in self.machines:
            with machine.entered():
                _ip("address", "add", f"{machine.address}/24", "dev", "eth0")
                _ip("link", "set", "eth0", "up")
                _ip("link", "set", "lo", "up")

    def cut(self, machine):
        """Nothing gets to this machine or away from it."""
        self._plug(machine, "nomaster")

    def heal(self, machine):
        self._plug(machine, "master", "switch")

    def _plug(self, machine, *how):
        with _entered(self._switch.pid):
            _ip("link", "set", f"port{self.machines.index(machine)}", *how)

    def close(self):
        for holder in (self._switch, *(one.holder for one in self.machines)):
            holder.kill()
            holder.wait()


def _hold():
    """A process that does nothing, in a namespace of its own."""
    ours = Path("/proc/self/ns/net").readlink()
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL)
    wait_until(lambda: Path(f"/proc/{holder.pid}/ns/net").readlink() != ours)
    return holder


def _ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
