"""Workers that die, workers that cannot start, graceful and forced ends: with real processes."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.server import supervisor as supervisor_module
from gateway.server.supervisor import Supervisor
from tests.certificates import write_certificate


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def await_end(pids):
    while any(map(is_alive, pids)):
        time.sleep(0.05)


def await_refusal(running):
    """Wait until no connection is accepted any more; the test's timeout ends the wait."""
    with suppress(ConnectionRefusedError):
        while True:
            with suppress(ConnectionResetError):  # it was in the accept queue of a listener that was closed
                running.connect().close()


@pytest.fixture
def gate(tmp_path):
    """The file for which the application holds back its answer to `/held`."""
    return tmp_path / "gate"


def in_background(function, *arguments):
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*arguments)))
    thread.start()
    return thread, results


def test_every_worker_serves(serving):
    with serving(workers=2) as running:
        expected = set(running.status()["pids"])
        assert len(expected) == 2
        seen = set()
        deadline = time.monotonic() + 20
        while seen != expected and time.monotonic() < deadline:
            # Several at once: an idle worker accepts those that a busy one does not.
            threads = [in_background(running.get, "/a") for _ in range(8)]
            for thread, results in threads:
                thread.join()
                seen.add(results[0]["pid"])
    assert seen == expected


def test_a_killed_worker_is_replaced_and_the_service_goes_on(serving):
    with serving(workers=2) as running:
        before = running.status()["pids"]
        os.kill(before[0], signal.SIGKILL)
        for _ in range(20):
            assert running.get("/a")["path"] == "/a"
        status = running.await_status(lambda status: status["is_ready"] and before[0] not in status["pids"])
    assert len(status["pids"]) == 2
    assert before[1] in status["pids"]


def test_a_worker_that_hangs_is_not_ready_and_is_replaced_and_an_idle_one_is_not(serving):
    with serving(workers=2, hang_seconds=4.0) as running:
        hanging, other = running.status()["pids"]
        os.kill(hanging, signal.SIGSTOP)  # it answers nothing, as when a write hangs
        status = running.await_status(lambda status: status["answering"] == 1)
        assert not status["is_ready"]
        status = running.await_status(lambda status: status["is_ready"])
        assert hanging not in status["pids"]
        assert other in status["pids"]
        assert status["counters"]["cachegate_workers_hung_total"] == 1
        said = iter(running.process.stderr.readline, b"")
        assert any(b"as when a write hangs, and is killed" in line for line in said)


def test_a_worker_that_cannot_be_started_now_is_started_later_and_the_others_go_on(serving):
    """No descriptor is available for a new process, and then there is."""
    with serving(workers=2) as running:
        pid = running.process.pid
        first, second = running.status()["pids"]
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        os.kill(first, signal.SIGKILL)
        said = iter(running.process.stderr.readline, b"")
        assert any(b"cannot be started" in line for line in said)
        assert running.get("/a")["pid"] == second
        assert running.process.poll() is None
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        status = running.await_status(lambda status: status["is_ready"])
        assert second in status["pids"]
        assert len(status["pids"]) == 2


def test_the_only_worker_is_replaced_and_a_waiting_connection_is_served(serving):
    with serving(workers=1) as running:
        os.kill(running.status()["pids"][0], signal.SIGKILL)
        assert running.get("/a")["path"] == "/a"


def test_a_worker_that_is_told_to_end_finishes_and_is_replaced(serving, gate):
    with serving(workers=1, argument={"gate": str(gate)}) as running:
        (before,) = running.status()["pids"]
        thread, results = in_background(running.get, "/held")
        running.await_request()
        os.kill(before, signal.SIGTERM)
        gate.touch()
        thread.join()
        assert results[0]["pid"] == before
        running.await_status(lambda status: status["is_ready"] and status["pids"] != [before])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_in_good_order_lets_answers_finish_and_takes_no_new_connection(serving, gate, number):
    with serving(workers=2, argument={"gate": str(gate)}, grace_seconds=60) as running:
        pids = running.status()["pids"]
        thread, results = in_background(running.get, "/held")
        running.await_request()
        running.process.send_signal(number)
        await_refusal(running)
        gate.touch()
        assert running.process.wait() == 0
        thread.join()
    assert results[0]["path"] == "/held"
    await_end(pids)


def test_it_is_not_ready_while_it_ends(serving, gate):
    with serving(argument={"gate": str(gate)}, grace_seconds=60) as running:
        thread, _ = in_background(running.get, "/held")
        running.await_request()
        running.process.send_signal(signal.SIGTERM)
        status = running.await_status(lambda status: not status["is_ready"])
        gate.touch()
        thread.join()
    assert status["ready"]["accepting"] is False


def test_what_is_not_finished_within_the_grace_limit_is_cut_off(serving):
    with serving(grace_seconds=1) as running:
        thread, _ = in_background(running.send, b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n")
        running.await_request()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait() == 0
        thread.join()


def test_no_worker_outlives_a_killed_parent(serving):
    with serving(workers=2) as running:
        pids = running.status()["pids"]
        running.process.kill()
        await_end(pids)
        with pytest.raises(ConnectionRefusedError):
            running.get("/a")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("fails_at", "status", "line"),
    [
        ("factory", 2, "cachegate.toml:3: the pepper folder is missing: run `cachegate init`\n"),
        ("lifespan", 2, "policies: the second folder is missing\n"),
        ("dependency", 3, "redis: connection refused\n"),
    ],
)
def test_a_start_that_fails_ends_with_one_clear_line(launch, fails_at, status, line, workers):
    process = launch(workers=workers, argument={"fails_at": fails_at})
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (status, b"")
    lines = errors.decode().splitlines(keepends=True)
    assert lines[-1] == line
    # A worker that was restarted while another was still failing may log a line.
    assert all(" ended with status " in other for other in lines[:-1])


def test_workers_that_crash_at_their_start_end_the_start(launch):
    process = launch(argument={"fails_at": "crash"})
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert b"ended with status 7 before it served" in errors


@pytest.mark.parametrize("which", ["port", "ops_port"])
def test_a_port_in_use_is_a_configuration_error_that_names_it(launch, which):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = launch(**{which: port})
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert f"127.0.0.1:{port}: is in use" in errors.decode()


def test_too_few_workers_are_a_configuration_error(launch):
    process = launch(workers=0)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors.startswith(b"workers:")


def test_it_serves_on_ipv6(serving):
    with serving(host="::1") as running:
        assert running.get("/a")["path"] == "/a"


def test_it_serves_over_tls(serving, tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_certificate(certificate, key)
    with serving(tls=[str(certificate), str(key)]) as running:
        context = ssl.create_default_context(cafile=certificate)
        for request, expected in (
            (b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b'"scheme": "https"'),
            (b"garbage\r\n\r\n", b'"status":400'),
        ):
            with (
                running.connect() as raw,
                context.wrap_socket(raw, server_hostname="localhost") as connection,
            ):
                connection.sendall(request)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            assert expected in answer


def test_a_certificate_that_is_not_there_is_a_configuration_error(launch, tmp_path):
    process = launch(tls=[str(tmp_path / "absent"), str(tmp_path / "absent")])
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors.startswith(b"TLS certificate or key: cannot be loaded")


@pytest.mark.parametrize("changed", ["certificate", "key"])
def test_a_certificate_that_others_could_have_written_stops_the_start(launch, tmp_path, changed):
    files = {"certificate": tmp_path / "certificate.pem", "key": tmp_path / "key.pem"}
    write_certificate(*files.values())
    files[changed].chmod(0o666)
    process = launch(tls=[str(file) for file in files.values()])
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors.startswith(f"{files[changed]}: cannot be trusted".encode())


def test_workers_that_cannot_be_asked_once_are_asked_again(monkeypatch):
    asked = []

    class Asking(Supervisor):
        def __init__(self):
            """Nothing is bound, and nothing is started."""

        async def status(self):
            asked.append(None)
            if len(asked) == 1:
                raise RuntimeError("nobody expected it")
            if len(asked) == 3:
                raise asyncio.CancelledError

    monkeypatch.setattr(supervisor_module, "POLL_SECONDS", 0.0)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Asking()._poll())
    assert len(asked) == 3
