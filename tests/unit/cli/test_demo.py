from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gateway.cli import demo as demo_module
from gateway.cli.main import run
from gateway.demo.tour import plan_tour


@pytest.fixture
def scratch():
    """A temporary directory of its own for the demo, which must be empty afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="cg-test-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def processes_of(scratch: Path) -> list[str]:
    """The processes whose working folder or arguments name this folder."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            where = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(scratch).encode() in told or where.startswith(str(scratch)):
            found.append(f"{process.name}: {told[:200]!r}")
    return found


def start(scratch: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "demo", *arguments],
        env={"PATH": os.defpath, "TMPDIR": str(scratch), "CACHEGATE_STATE": "/not/used", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_check_passes_and_leaves_no_process_and_no_folder_behind(scratch):
    done = start(scratch, "--check")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0, out + err
    assert "Every answer was as expected" in err
    assert "a tenant reads its own file" in out
    assert "cg_demo_" not in out + err
    assert list(scratch.iterdir()) == []
    assert processes_of(scratch) == []


def test_a_wrong_expectation_is_exit_status_one_and_is_named(monkeypatch, capsys):
    def plan_wrongly(world):
        first, *others = plan_tour(world)
        return (type(first)(**{**_fields(first), "expected": 418}), *others)

    monkeypatch.setattr(demo_module, "plan_tour", plan_wrongly)
    assert run(["demo", "--check"]) == 1
    assert "GET /v1/whoami: expected 418, got 200" in capsys.readouterr().err


def _fields(step):
    return {name: getattr(step, name) for name in step.__struct_fields__}


def test_a_port_in_use_is_one_clear_line(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run(["demo", "--port", str(port)]) == 2
    err = capsys.readouterr().err
    assert f"port {port}" in err
    assert "--port" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_end_and_takes_everything_away(scratch, number):
    process = start(scratch, "--port", "0")
    curl = next(line for line in process.stdout if line.startswith("  curl"))
    assert "Bearer cg_demo_" in curl
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, out + err
    assert "Traceback" not in err
    assert list(scratch.iterdir()) == []
    assert processes_of(scratch) == []


def test_ended_in_the_middle_of_its_start_it_takes_everything_away(scratch):
    process = start(scratch, "--check")
    deadline = time.monotonic() + 20
    while not any(scratch.glob("*/serve.log")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode not in {0, None}
    assert "Traceback" not in err
    assert list(scratch.iterdir()) == []
    assert processes_of(scratch) == []
