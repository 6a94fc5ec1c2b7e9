"""A test run that is killed leaves no process behind: no server, no worker, no daemon."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENDLESS = "tests/faults/endless.py"
MARK = "ENDLESS_FOLDER"
STARTED = {"valkey-server": 2, "nginx": 2, "sleep": 1}  # an nginx is a master and a worker
OURS = 7  # besides: stand-in, guard, pytest, two workers of xdist, the gateway and its worker
PATIENCE_SECONDS = 200.0  # a start takes three seconds on an idle machine

pytestmark = pytest.mark.timeout(300)


def children_of(pid):
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            yield from map(int, (task / "children").read_text().split())


def tree_of(pid):
    """This process and all that descend from it, unless they have been adopted by another process."""
    return [pid, *(one for child in children_of(pid) for one in tree_of(child))]


def name_of(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return None


def that_work_in(folder):
    """The processes that have the folder in their command or environment, or that live in it."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            said = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            if os.fsencode(folder) in said or (place / "cwd").readlink().is_relative_to(folder):
                found.append(f"{place.name} {said[:200]!r}")
    return found


class Run:
    """A run of the endless tests, in a process group of its own, with everything that it started."""

    def __init__(self, folder, command):
        self.folder = folder
        inherited = {
            name: value
            for name, value in os.environ.items()  # noqa: TID251 -- for a program that we start
            if not name.startswith(("PYTEST_", "MAKE", "MFLAGS"))
        }
        with (folder / "output").open("w") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=inherited | {MARK: str(folder)},
                stdout=output,
                stderr=output,
                process_group=0,
            )
        self.pidfds = {}

    def await_up(self, eventually):
        """Wait until both tests have started what they start, and note each process of the run."""

        def is_up():
            assert self.process.poll() is None, self.output()
            return len(list(self.folder.glob("*.is-up"))) == 2

        def is_whole():  # a daemon starts its worker when it is asked for nothing any more
            names = [name_of(pid) for pid in tree_of(self.process.pid)]
            started = {name: names.count(name) for name in STARTED}
            return started == STARTED and len(names) >= sum(STARTED.values()) + OURS

        eventually(is_up, PATIENCE_SECONDS)
        eventually(is_whole)
        self.pidfds = {pid: os.pidfd_open(pid) for pid in tree_of(self.process.pid)}

    def output(self):
        return (self.folder / "output").read_text()

    @property
    def stand_in(self):
        """The process that was started as pytest: make's child, or what we started."""
        return self._below(lambda words: b"stand-in" in words)

    @property
    def guard(self):
        return self._below(lambda words: b"guard" in words)

    @property
    def pytest(self):
        return next(children_of(self.guard))

    def _below(self, is_it):
        [found] = [
            pid for pid in self.pidfds if is_it(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
        ]
        return found

    def await_end(self):
        """Wait until each process of the run has ended; the test's own limit of time ends the wait."""
        left = set(self.pidfds.values())
        while left:
            self.process.poll()
            ended, _, _ = select.select(left, [], [], 0.1)
            left -= set(ended)
        return self.process.wait()


@pytest.fixture
def start(tmp_path, eventually):
    runs = []

    def started(*command):
        run = Run(tmp_path, command)
        runs.append(run)
        run.await_up(eventually)
        return run

    yield started
    for run in runs:
        for pidfd in run.pidfds.values():
            with suppress(ProcessLookupError):  # nothing is left behind by a test that fails, either
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        run.process.kill()
        run.process.wait()


@pytest.fixture
def run(start, tmp_path):
    options = ["-n", "2", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/t"]
    return start(sys.executable, "-m", "pytest", *options, ENDLESS)


@pytest.fixture
def make(start, tmp_path):
    if not (ROOT / ".venv" / "ready").exists():
        pytest.skip("there is no environment that make would use")
    options = f"-n 2 -p no:cacheprovider --basetemp={tmp_path}/t {ENDLESS}"
    return start("make", "test", f"ARGS={options}")


def kill(number):
    return lambda run: os.kill(run.stand_in, number)


def kill_group(number):
    return lambda run: os.killpg(run.process.pid, number)


ENDS = {
    "SIGTERM": (kill(signal.SIGTERM), {-signal.SIGTERM}),
    "SIGINT": (kill(signal.SIGINT), {2}),  # pytest says what it did so far
    "SIGHUP": (kill(signal.SIGHUP), {-signal.SIGHUP}),
    "SIGKILL": (kill(signal.SIGKILL), {-signal.SIGKILL}),
    "SIGKILL of what runs pytest": (lambda run: os.kill(run.pytest, signal.SIGKILL), {-signal.SIGKILL}),
    "SIGKILL of the guard": (lambda run: os.kill(run.guard, signal.SIGKILL), {-signal.SIGKILL}),
    "SIGTERM of the group": (kill_group(signal.SIGTERM), {-signal.SIGTERM}),
    "SIGINT of the group": (kill_group(signal.SIGINT), {2, -signal.SIGINT}),
    "SIGKILL of the group": (kill_group(signal.SIGKILL), {-signal.SIGKILL}),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDS)
def test_a_run_that_is_ended_leaves_nothing_behind(run, tmp_path, how):
    end, statuses = ENDS[how]
    end(run)
    assert run.await_end() in statuses, run.output()
    assert that_work_in(tmp_path) == []


MAKE_ENDS = {
    "SIGTERM of make": lambda run: run.process.terminate(),
    "SIGKILL of make": lambda run: run.process.kill(),
    "SIGTERM of the group": kill_group(signal.SIGTERM),
    "SIGINT of the group": kill_group(signal.SIGINT),
    "SIGKILL of the group": kill_group(signal.SIGKILL),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", MAKE_ENDS)
def test_make_test_that_is_ended_leaves_nothing_behind(make, tmp_path, how):
    MAKE_ENDS[how](make)
    assert make.await_end() != 0, make.output()
    assert that_work_in(tmp_path) == []


@pytest.mark.parametrize(("code", "status"), [("pass", 0), ("assert False", 1)])
def test_a_run_that_ends_by_itself_ends_with_its_own_status_and_leaves_nothing(tmp_path, code, status):
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "process_guard.py").write_text((ROOT / "tests" / "process_guard.py").read_text())
    (tmp_path / "test_it.py").write_text(
        "import subprocess\n"
        "def test_it():\n"
        "    subprocess.run(['setsid', '--fork', 'sleep', '1000'], check=True)\n"
        f"    {code}\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "-c",
        os.devnull,
    ]
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert that_work_in(tmp_path) == []
