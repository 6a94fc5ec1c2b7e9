"""The servers that hold the facts, and their Sentinels, as `deploy/redis/` sets them up.

The files there are what an operator copies, so they are what is run here, with ports, folders and passwords
filled in. Times at which the Sentinels act are shorter: they do not change what happens, only when.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

import redis

from gateway.adapters.valkey_program import find_program
from tests.conftest import wait_until
from tests.faults.replicated.machines import Machine
from tests.fleet import FactServer

DEPLOY = Path(__file__).parents[3] / "deploy" / "redis"
SERVICE = "cachegate"
PASSWORDS = {"cachegate": "gateways-word", "replica": "replicas-word", "sentinel": "sentinels-word"}
TEST_USER, TEST_PASSWORD = "test", "tests-word"
CATCH_UP_BYTES = 10_000  # a replica that is not further behind is there


def program_of(name):
    """The server program, by name. One that is not installed is no reason to test less."""
    if name == "valkey":
        return str(find_program())
    found = shutil.which("redis-server")
    assert found, "redis-server is not installed: apt-get install redis-server"
    return found


def filled(name, **replaced):
    """A shipped file, with these lines instead of those that begin with the same word."""
    lines = (DEPLOY / name).read_text().splitlines()
    for word, line in replaced.items():
        at = [number for number, one in enumerate(lines) if one.split(" ")[0] == word.replace("_", "-")]
        assert len(at) == 1, f"{name} has {len(at)} lines that begin with {word}"
        lines[at[0]] = line
    return "\n".join(lines)


def users(*more):
    """`users.acl` with passwords, and a user for the test itself."""
    text = (DEPLOY / "users.acl").read_text()
    lines = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["user"] and words[1] in PASSWORDS:
            line = line.replace("<password>", PASSWORDS[words[1]])  # noqa: PLW2901
            line += "".join(f" {right}" for right in more if words[1] == "cachegate")  # noqa: PLW2901
        lines.append(line)
    assert "<password>" not in "\n".join(lines)
    return "\n".join((*lines, f"user {TEST_USER} on >{TEST_PASSWORD} ~* &* +@all", ""))


class Member(FactServer):
    """One server of a group."""

    def __init__(self, folder, machine=None, *, program="valkey", environment=None, rights=(), lines=()):
        super().__init__(folder)
        self.machine = machine or Machine()
        self.host = self.machine.address
        self._program = program_of(program)
        self._environment = environment or {}
        self._configuration = folder / "server.conf"
        (folder / "users.acl").write_text(users(*rights))
        self._configuration.write_text(
            filled(
                "redis.conf",
                port=f"port {self.port}",
                bind=f"bind {self.host}" + ("" if self.host == "127.0.0.1" else " 127.0.0.1"),
                dir=f"dir {folder}",
                aclfile=f"aclfile {folder}/users.acl",
                masterauth=f"masterauth {PASSWORDS['replica']}",
            )
            + "\n"
            + "\n".join(('save ""', *lines))
            + "\n"
        )

    @property
    def place(self):
        return self.host, self.port

    def start(self):
        # A file that it may write to: the Sentinels have it note whom it follows.
        with self.machine.entered(), (self.folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [self._program, self._configuration, *self._mode()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **self._environment},  # noqa: TID251 -- a server has what we have
            )
        wait_until(self._answers)
        return self

    def _mode(self):
        return ()

    def _answers(self):
        assert self._process.poll() is None, self.log()
        with suppress(redis.RedisError):
            return self.ask("PING")
        return False

    def log(self):
        return (self.folder / "server.log").read_text()

    def client(self):
        login = {} if self._mode() else {"username": TEST_USER, "password": TEST_PASSWORD}
        return redis.Redis(port=self.port, socket_timeout=10, decode_responses=True, **login)

    def ask(self, *command):
        with self.machine.entered(), self.client() as client:
            return client.execute_command(*command)

    def replication(self):
        with self.machine.entered(), self.client() as client:
            return client.info("replication")

    def freeze(self):
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.pid, signal.SIGCONT)

    def close(self):
        if self._process is not None and self._process.poll() is None:
            self.kill()


class Watcher(Member):
    """One Sentinel."""

    def __init__(self, folder, machine, primary, *, program="valkey", down_after=500):
        FactServer.__init__(self, folder)
        self.machine, self.host = machine, machine.address
        self._program, self._environment = program_of(program), {}
        self._configuration = folder / "sentinel.conf"
        text = (DEPLOY / "sentinel.conf").read_text()
        for before, after in (
            ("port 26379", f"port {self.port}"),
            ("bind 10.0.0.11", f"bind {self.host}" + ("" if self.host == "127.0.0.1" else " 127.0.0.1")),
            ("dir /var/lib/redis-sentinel", f"dir {folder}"),
            (f"monitor {SERVICE} 10.0.0.11 6379", f"monitor {SERVICE} {primary.host} {primary.port}"),
            ("<password of `sentinel`>", PASSWORDS["sentinel"]),
            (f"down-after-milliseconds {SERVICE} 3000", f"down-after-milliseconds {SERVICE} {down_after}"),
            (f"failover-timeout {SERVICE} 10000", f"failover-timeout {SERVICE} 3000"),
        ):
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        self._configuration.write_text(text)

    def _mode(self):
        return ("--sentinel",)


class Group:
    """Servers and Sentinels. The first server is the primary at first."""

    def __init__(self, folder, machines=(), *, size=3, program="valkey", environments=(), down_after=500,
                 lines=()):  # fmt: skip
        self._folder, self._program = folder, program
        places = list(machines) or [Machine()] * 3
        environments = list(environments) or [{}] * size
        # Of two servers, one alone has to take writes, as `redis.conf` says.
        lines = (*lines, *(("min-replicas-to-write 0",) if size == 2 else ()))
        self.members = []
        for number in range(size):
            follows = ()
            if number:
                first = self.members[0]
                follows = (f"replicaof {first.host} {first.port}",)
            member = Member(
                folder / f"server{number}", places[number], program=program,
                environment=environments[number], lines=(*lines, *follows),
            )  # fmt: skip
            self.members.append(member.start())
        self.watchers = [
            Watcher(folder / f"sentinel{number}", places[number], self.members[0], program=program,
                    down_after=down_after).start()
            for number in range(3)
        ]  # fmt: skip
        self.hurry(is_on=True)
        wait_until(self.is_whole)
        self.hurry(is_on=False)

    @property
    def url(self):
        hosts = ",".join(f"{one.host}:{one.port}" for one in self.watchers)
        return f"redis+sentinel://cachegate:{PASSWORDS['cachegate']}@{hosts}/{SERVICE}"

    def named(self):
        """The server that most Sentinels name."""
        votes = Counter()
        for watcher in self.watchers:
            with suppress(redis.RedisError):
                host, port = watcher.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
                votes[host, int(port)] += 1
        place, count = votes.most_common(1)[0] if votes else (None, 0)
        found = [one for one in self.members if one.place == place]
        return found[0] if found and 2 * count > len(self.watchers) else None

    def replicas(self):
        primary = self.named()
        return [one for one in self.members if one is not primary]

    def failover(self):
        """As an operator asks for it. It is refused while the last one is not quite over."""

        def ask():
            with suppress(redis.ResponseError):
                return self.watchers[0].ask("SENTINEL", "FAILOVER", SERVICE)
            return False

        wait_until(ask)

    def add_replica(self, machine):
        """One more server, of the primary that is named now."""
        primary = self.named()
        member = Member(
            self._folder / f"server{len(self.members)}", machine, program=self._program,
            lines=(f"replicaof {primary.host} {primary.port}",),
        )  # fmt: skip
        self.members.append(member.start())
        wait_until(lambda: member.replication()["master_link_status"] == "up")

    def hurry(self, *, is_on):
        """Let the Sentinels look more often, and wait for less long until they put a server right."""
        publish, info = (100, 200) if is_on else (2000, 10_000)
        for watcher in self.watchers:
            watcher.ask("SENTINEL", "DEBUG", "PUBLISH-PERIOD", publish, "INFO-PERIOD", info)

    def is_whole(self):
        """Whether all servers replicate and all Sentinels know it."""
        primary = self.named()
        if primary is None or not self._is_followed(primary):
            return False
        return all(self._is_content(watcher) for watcher in self.watchers)

    def _is_followed(self, primary):
        with suppress(redis.RedisError):
            seen = primary.replication()
            followers = [
                value for name, value in seen.items() if name.startswith("slave") and name[5:].isdigit()
            ]
            return (
                seen["role"] == "master"
                and sum(one["state"] == "online" for one in followers) == len(self.members) - 1
                and all(seen["master_repl_offset"] - one["offset"] < CATCH_UP_BYTES for one in followers)
            )
        return False

    def listed_replicas(self, watcher):
        """The replicas that a Sentinel lists, with what it last heard of them."""
        with watcher.machine.entered(), watcher.client() as client:
            return client.sentinel_slaves(SERVICE)

    def _is_content(self, watcher):
        """Whether nothing goes on there, so that a failover can begin."""
        with suppress(redis.RedisError):
            with watcher.machine.entered(), watcher.client() as client:
                state = client.sentinel_master(SERVICE)
            replicas = self.listed_replicas(watcher)
            return (
                state["flags"] == "master"
                and int(state["num-other-sentinels"]) == len(self.watchers) - 1
                and sorted(one["flags"] for one in replicas) == ["slave"] * (len(self.members) - 1)
                and all(one["master-link-status"] == "ok" for one in replicas)
            )
        return False

    def close(self):
        for one in (*self.watchers, *self.members):
            one.close()
