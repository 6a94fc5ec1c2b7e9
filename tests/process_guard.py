"""What keeps a test run from leaving processes behind, however it ends. A program of its own; Linux only.

Tests start servers, and some of these leave their parent on purpose: the embedded Valkey lives in a session
of its own and has no environment. A run that is killed cannot stop them. So `conftest.py` puts two processes
above the one that runs pytest (`stand_guard`):

    stand-in    has the process id that whoever started pytest knows: it passes signals and the exit status on
    guard       in a process group of its own, so that a signal to the whole group does not reach it
    pytest      with its xdist workers, and everything that they start

Both are subreapers: a process whose parent ended becomes their child instead of init's. When pytest has
ended, or the stand-in has, or somebody asks for it, the guard kills its children until there are none. If the
guard itself is killed, the stand-in does the same. Only both killed at one moment would leave anything.

A child that nobody has waited for keeps its process id, and each kills its own children only: a process of
somebody else is never hit.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SI_KERNEL = 128  # of a signal that the terminal sent, to each process of the group
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WATCHED = (signal.SIGCHLD, *ENDINGS)


def stand_guard() -> None:
    """Put stand-in and guard above this process; returns in a child of theirs. Call it without threads."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    ready, is_ready = os.pipe()
    stand_in = os.getpid()
    guard = os.fork()
    if guard:
        _become("stand-in", guard)
    tests = os.fork()
    if tests:
        os.set_inheritable(is_ready, True)
        _become("guard", tests, stand_in, is_ready)
    os.close(is_ready)
    os.read(ready, 1)  # nothing is started before somebody would end it
    os.close(ready)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _become(*arguments: object) -> None:
    # Isolated and without site packages: this module only, and up within some 20 ms.
    try:
        os.execv(sys.executable, [sys.executable, "-IS", __file__, *map(str, arguments)])
    finally:
        os._exit(70)


def stand_in_for(guard: int) -> int:
    """Pass on what is sent to us, until the guard has ended. Returns a status as of `os.waitpid`."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    if _name_of(os.getppid()) in {"make", "gmake"}:  # it does not pass SIGKILL on; its recipe ends with it
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    asked = None
    while (status := _ended(guard)) is None:
        sent = signal.sigwaitinfo(_heard())
        if sent.si_signo in ENDINGS and sent.si_code != SI_KERNEL:
            asked = sent.si_signo
            os.kill(guard, asked)
    _end_children()
    return status if asked in {None, signal.SIGINT} else asked


def guard_over(tests: int, stand_in: int, is_ready: int) -> int:
    """Wait until the tests end, or have to; then end all that is left of them."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.setpgid(0, 0)
    os.write(is_ready, b".")
    os.close(is_ready)
    status = None
    while os.getppid() == stand_in and (status := _ended(tests)) is None:
        number = signal.sigwaitinfo(_heard()).si_signo
        if number == signal.SIGINT:  # pytest stops by itself and says what it did so far
            os.kill(tests, number)
        elif number in ENDINGS:
            break
    _end_children()
    return int(signal.SIGKILL) if status is None else status


def _heard() -> list[int]:
    """What is watched, without the endings that were ignored when we were started (`nohup`)."""
    heard = [number for number in ENDINGS if signal.getsignal(number) is not signal.SIG_IGN]
    return [signal.SIGCHLD, *heard]


def _ended(awaited: int) -> int | None:
    """The status of this child if it has ended. Others that have, which were adopted, are let go of."""
    found = None
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == awaited:
                found = status
    return found


def _end_children() -> None:
    """Kill our children, and theirs as they become ours, until none is left."""
    me = os.getpid()
    while True:
        for child in Path(f"/proc/{me}/task/{me}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.005)


def _name_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _end_as(status: int) -> None:
    """End with the same status, by the same signal."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in {*ENDINGS, signal.SIGKILL}:
            os._exit(128 + number)  # without a second core dump
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    role, *numbers = sys.argv[1:]
    run = {"stand-in": stand_in_for, "guard": guard_over}[role]
    _end_as(run(*map(int, numbers)))
