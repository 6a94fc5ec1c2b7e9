"""The worker's side of the control channel, as seen through a whole instance."""

from __future__ import annotations

import os
import signal


def test_counters_are_summed_over_workers_and_over_the_dead(serving):
    with serving(workers=2) as running:
        for _ in range(30):
            running.get("/a")
        status = running.status()
        assert status["counters"]["requests"] == 30
        for pid in status["pids"]:
            os.kill(pid, signal.SIGKILL)
        gone = set(status["pids"])
        status = running.await_status(lambda status: status["is_ready"] and not gone & set(status["pids"]))
        assert status["counters"]["requests"] == 30
        running.get("/a")
        assert running.status()["counters"]["requests"] == 31


def test_a_worker_that_is_not_ready_makes_the_instance_unready(serving):
    with serving(argument={"is_unready": True}) as running:
        status = running.status()
    assert status["ready"] == {"policy": False, "accepting": True}
    assert not status["is_ready"]


def test_a_worker_that_does_not_answer_in_time_makes_the_instance_unready(serving, tmp_path):
    mute = tmp_path / "mute"
    with serving(workers=2, argument={"mute_pid_file": str(mute)}) as running:
        first, _ = running.status()["pids"]
        (tmp_path / "new").write_text(str(first))
        (tmp_path / "new").rename(mute)
        status = running.await_status(lambda status: status["answering"] == 1)
        assert not status["is_ready"]
        mute.unlink()
        running.await_status(lambda status: status["is_ready"])
