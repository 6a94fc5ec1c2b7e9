from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from gateway.demo import served_gateway
from gateway.demo.served_gateway import DemoGateway
from gateway.model.errors import Unavailable


def child(tmp_path, program):
    """A gateway whose process is some other program."""
    log = tmp_path / "serve.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=file, stderr=file, start_new_session=True
        )
    return DemoGateway(host="127.0.0.1", port=0, process=process, log=log)


def test_a_gateway_that_ends_at_its_start_is_unavailable_with_the_end_of_its_log(tmp_path):
    running = child(tmp_path, "raise SystemExit('the disk is on fire')")
    with pytest.raises(Unavailable, match="the disk is on fire"):
        running.await_ready()
    running.stop()


def test_a_gateway_that_never_gets_ready_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(served_gateway, "START_SECONDS", 0.2)
    running = child(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(Unavailable, match="not ready"):
        running.await_ready()
    running.stop()
    assert running.process.returncode is not None


def test_a_gateway_that_does_not_end_is_ended_by_force(tmp_path, monkeypatch):
    monkeypatch.setattr(served_gateway, "STOP_SECONDS", 0.2)
    program = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    running = child(tmp_path, program)
    while "up" not in running.log.read_text():
        assert running.process.poll() is None
    running.stop()
    assert running.process.returncode == -9


def test_nothing_of_the_callers_environment_reaches_the_child(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHEGATE_REDIS_URL", "redis://elsewhere")
    assert "elsewhere" not in str(served_gateway._environment(tmp_path))


def test_a_signal_waits_until_the_process_that_was_just_started_is_known():
    known = []

    def start_something():
        with served_gateway._undisturbed():
            signal.raise_signal(signal.SIGINT)
            known.append("a process")

    with pytest.raises(KeyboardInterrupt):
        start_something()
    assert known == ["a process"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
