"""Processes as the kernel reports them: on which core they run, what they use, and what they hold open.

A server is a tree of processes, and all of it counts. One that has left the tree, as a daemon does, is named
as a root of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

CORES = tuple(sorted(os.sched_getaffinity(0)))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]  # one and the same where there is only one
STOP_SECONDS = 10.0
SAID = 2_000  # of the end of a log, when something failed
_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def on_cores(*cores: int) -> Iterator[None]:
    """This thread, and every process that it starts meanwhile, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def move(roots: Iterable[int], cores: Collection[int]) -> None:
    """Servers that run, to other cores: all processes and threads of them."""
    for pid in tree(roots):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)


@contextmanager
def running(arguments: Sequence[str | Path], log: Path, environment: dict[str, str]) -> Iterator[int]:
    """A server on the servers' core until the end of this; gives its process id."""
    with log.open("wb") as out, on_cores(SERVER_CORE):
        process = subprocess.Popen(
            arguments,
            env={"PATH": os.defpath, "HOME": str(log.parent), **environment},
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,  # Ctrl-C reaches the benchmark, which ends it in order
        )
    try:
        yield process.pid
    except Exception as error:
        if said := log.read_text(errors="replace")[-SAID:]:
            error.add_note(f"{log.parent.name} said:\n{said}")
        raise
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tree(roots: Iterable[int]) -> Iterator[int]:
    """These processes and all below them."""
    for pid in roots:
        yield pid
        for thread in _entries(f"/proc/{pid}/task"):
            with suppress(OSError):  # it has ended since
                yield from tree(map(int, (thread / "children").read_text().split()))


def cpu_seconds(roots: Iterable[int]) -> float:
    """What these trees have used so far, in user and system time."""
    ticks = 0
    for pid in tree(roots):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def memory_mb(pid: int) -> float:
    """What a process takes of the memory, with its share of what others use as well (PSS), in 10^6 bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("the kernel tells no PSS")


def open_files(pid: int) -> list[str]:
    """What each descriptor of a process is."""
    found = []
    for entry in _entries(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found.append(str(entry.readlink()))
    return found


def _entries(folder: str) -> list[Path]:
    try:
        return list(Path(folder).iterdir())
    except OSError:
        return []
