"""Fleets to be hurt, readers that watch them, and a judge of what they saw.

A `Fleet` is four workers of a real `cachegate serve` over a fact server of the test's own, reached
through a proxy that can lose, hold back and cut. `Readers` are processes of their own. A `Changer`
makes changes by the operations that the commands use and writes each into the `Ledger` with the
moments at which it began and returned; the ledger then judges every answer by the time line of its
thing (I6):

    an answer to a request that was sent after a change had returned follows that change, or a later
    one that had begun before the answer's first byte, or it is 503: undecided is always honest.

It holds for allows and denials alike. What was asked for before the change returned and answered
after is bound to nothing by this law; tests that know more ask for more.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.adapters.valkey_program import find_program
from gateway.configuration.settings import CHECKOUT_POLICIES
from gateway.directory.edits import grants, keys, models, tenants
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.model.errors import Conflict, Unavailable
from gateway.model.facts import KeyKind
from gateway.model.names import parse_pattern, parse_tenant_id
from gateway.operations.policy_folder import apply_folder, load_folder
from tests.ports import free_port

ALLOWED, NOBODY, HIDDEN, UNDECIDED = 200, 401, 404, 503
BEGINNING, NEVER = float("-inf"), float("inf")
LEASE_SECONDS = 1.0
KEYS_SHOWN = 4  # the key that lives and the last ones that were revoked

CONTENT = b"what the readers read\n"
PACKAGE = "pkgA1"
OWNED, LENT, SHOWN, HELD = "acme/owned/1", "globex/lent/1", "globex/shown/1", "acme/held/1"
FORBID_HELD = '@id("held") forbid (principal, action, resource in ModelGroup::"pattern:acme/held/*");\n'


def path_of(model, handle="weights.onnx"):
    return f"/v1/models/{model}/-/{PACKAGE}/{handle}"


def request_for(path, token):
    return f"GET {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


# The fact server, and what lies between it and the workers


class FactServer:
    """A Valkey on TCP that a test may stop, kill, pause and set back."""

    def __init__(self, folder, *lines):
        self.folder = folder
        self.port = free_port()
        self._lines = lines
        self._process = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self._process.pid

    def start(self):
        lines = ("appendonly yes", "appendfsync always", 'save ""', *self._lines)
        self._spawn([find_program(), "-"], lines)
        return self

    def _spawn(self, command, lines):
        lines = ("bind 127.0.0.1", f"port {self.port}", f"dir {self.folder}", *lines)
        with (self.folder / "valkey.log").open("a") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.folder
            )
        self._process.stdin.write("\n".join(lines).encode() + b"\n")
        self._process.stdin.close()
        deadline = time.monotonic() + 10
        while True:
            with suppress(redis.RedisError), self.client() as client:
                client.ping()
                return
            assert time.monotonic() < deadline, (self.folder / "valkey.log").read_text()
            time.sleep(0.01)

    def client(self):
        return redis.Redis(port=self.port, socket_timeout=10)

    def kill(self):
        self._process.kill()
        self._process.wait()

    @contextmanager
    def stopped(self):
        """It is there and says nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def copy_of_data(self, name):
        """A back-up, as an operator would take one of a server that is idle."""
        copy = self.folder / name
        shutil.copytree(self.folder / "appendonlydir", copy)
        return copy

    def put_back(self, copy):
        shutil.rmtree(self.folder / "appendonlydir")
        shutil.copytree(copy, self.folder / "appendonlydir")


class Sentinel(FactServer):
    """Watches a primary, alone, and lets its replica take over."""

    def __init__(self, folder, name, primary_port):
        super().__init__(folder)
        self._lines = (
            f"sentinel monitor {name} 127.0.0.1 {primary_port} 1",
            f"sentinel down-after-milliseconds {name} 500",
            f"sentinel failover-timeout {name} 3000",
        )

    def start(self):
        # It writes what it finds out into its configuration, so that has to be a file.
        configuration = self.folder / "sentinel.conf"
        configuration.write_text(
            "\n".join(("bind 127.0.0.1", f"port {self.port}", f"dir {self.folder}", *self._lines)) + "\n"
        )
        self._spawn([find_program(), configuration, "--sentinel"], ())
        return self


@dataclass(eq=False)
class Link:
    """One connection through the proxy."""

    kind: str = "data"
    is_held: bool = False


class Proxy:
    """Between the workers and the fact server: it can lose what flows one way, hold replies back, and cut.

    A feed connection gives its name in its first words; all others are data connections.
    """

    def __init__(self, server_port):
        self.port = free_port()
        self.server_port = server_port
        self.lost = set()  # of (kind, direction)
        self.caught = threading.Event()  # a reply is being held back
        self.lets_in = True
        self._needle = None
        self._loop = asyncio.new_event_loop()
        self._writers = {}
        self._thread = threading.Thread(target=self._run)
        self._started = threading.Event()
        self._thread.start()
        self._started.wait()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    @contextmanager
    def losing(self, *what):
        """Within it, packets of these (kind, direction) vanish; connections stay as they are."""
        self.lost = set(what)
        try:
            yield
        finally:
            self.lost = set()
            # What was lost is missing in the middle of a stream: those connections are of no use any more.
            self.cut("feed", "data")

    @contextmanager
    def holding(self, *needles):
        """Within it, the reply to the first request that has all of these in it is held back."""
        self.caught.clear()
        self._needle = needles
        try:
            yield
        finally:
            self.release()

    def release(self):
        self._needle = None
        for link in list(self._writers):
            link.is_held = False

    def cut(self, *kinds):
        """Break these connections off."""

        def abort():
            for link, writers in list(self._writers.items()):
                if link.kind in kinds:
                    for writer in writers:
                        writer.transport.abort()

        self._loop.call_soon_threadsafe(abort)

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self):
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", self.port))
        self._loop.call_soon(self._started.set)
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _connected(self, client_reader, client_writer):
        if not self.lets_in:
            client_writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:
            client_writer.transport.abort()
            return
        link = Link()
        self._writers[link] = (client_writer, server_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(link, "to server", client_reader, server_writer))
                both.create_task(self._pump(link, "to worker", server_reader, client_writer))
        finally:
            del self._writers[link]

    async def _pump(self, link, direction, reader, writer):
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if direction == "to server":
                    if b"cachegate-feed" in data:
                        link.kind = "feed"
                    needle = self._needle
                    if needle and link.kind == "data" and all(one in data for one in needle):
                        self._needle, link.is_held = None, True
                while direction == "to worker" and link.is_held:
                    self.caught.set()
                    await asyncio.sleep(0.002)
                if (link.kind, direction) not in self.lost:
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()


# What happened, and the judge


@dataclass(frozen=True)
class Event:
    """A change of one thing: when it began and had returned (never: unknown), the status from then on."""

    began_at: float
    returned_at: float
    status: int


@dataclass(frozen=True)
class Observation:
    """One answer, as a reader saw it."""

    sent_at: float
    arrived_at: float
    status: int
    thing: str
    record_id: str


@dataclass
class Verdict:
    """What the judge found."""

    checked: Counter = field(
        default_factory=Counter
    )  # by (kind of thing, status), answers bound to one status
    undecided: int = 0
    broken_off: int = 0
    free: int = 0  # answers to requests that a change was under way for: bound to nothing
    violations: list = field(default_factory=list)

    @property
    def total(self):
        return sum(self.checked.values())

    def seen(self, status):
        return sum(count for (_, one), count in self.checked.items() if one == status)


class Ledger:
    """The time line of every thing. The kind of a thing is what stands before the colon of its name."""

    def __init__(self):
        self._events = {}
        self.barriers = []
        self.changes = 0

    def begin(self, thing, status):
        self._events[thing] = [Event(BEGINNING, BEGINNING, status)]

    def status(self, thing):
        return self._events[thing][-1].status

    def is_sure(self, thing):
        """Whether the last change of it had returned, and is known to hold."""
        return self._events[thing][-1].returned_at < NEVER

    def statuses(self):
        return {thing: events[-1].status for thing, events in self._events.items()}

    def note(self, flips, began_at, returned_at):
        for thing, status in flips.items():
            self._events[thing].append(Event(began_at, returned_at, status))

    def judge(self, observations):
        verdict = Verdict()
        begins = {thing: [event.began_at for event in events] for thing, events in self._events.items()}
        for one in observations:
            events = self._events[one.thing]
            # Back from the last change that had begun when the answer came, to one that had returned before.
            at = bisect_right(begins[one.thing], one.arrived_at) - 1
            bound = {events[at].status}
            while events[at].returned_at > one.sent_at:
                at -= 1
                bound.add(events[at].status)
            if one.status == 0:
                verdict.broken_off += 1
            elif one.status == UNDECIDED:
                verdict.undecided += 1
            elif one.status not in bound:
                verdict.violations.append((one, events[at]))
            elif len(bound) == 1:
                verdict.checked[one.thing.partition(":")[0], one.status] += 1
            else:
                verdict.free += 1
        return verdict

    def started_late(self, observations):
        """Old allows whose first byte came after the change had returned, of requests sent before that."""
        late = []
        for one in observations:
            if one.status != ALLOWED:
                continue
            events = self._events[one.thing]
            settled = max(i for i, event in enumerate(events) if event.returned_at <= one.arrived_at)
            if any(
                event.status == ALLOWED and event.began_at <= one.arrived_at for event in events[settled:]
            ):
                continue
            if events[settled].returned_at > one.sent_at:
                late.append((one, events[settled]))
        return late


# Readers


class Readers:
    """Processes that ask for things all the time."""

    def __init__(self, wire, folder, *, processes=2, connections=6, pause_seconds=0.002):
        self._things = {}
        self._outputs = [
            folder / f"reader-{time.monotonic_ns()}-{number}.jsonl" for number in range(processes)
        ]
        program = str(Path(__file__).with_name("reader.py"))
        order = [wire.host, str(wire.port), str(connections), str(pause_seconds)]
        self._processes = [
            subprocess.Popen([sys.executable, program, *order, str(output)], stdin=subprocess.PIPE, text=True)
            for output in self._outputs
        ]

    def show(self, things):
        """Ask for these as well: thing -> request."""
        self._things |= {thing: raw.hex() for thing, raw in things.items()}
        self._tell()

    def drop(self, *things):
        for thing in things:
            self._things.pop(thing, None)
        self._tell()

    def stop(self):
        for process in self._processes:
            with suppress(BrokenPipeError):
                process.stdin.close()
        statuses = [process.wait(timeout=60) for process in self._processes]
        assert statuses == [0] * len(statuses)
        return [
            Observation(*json.loads(line)) for path in self._outputs for line in path.read_text().splitlines()
        ]

    def kill(self):
        for process in self._processes:
            process.kill()
            process.wait()
            process.stdin.close()

    def _tell(self):
        for process in self._processes:
            process.stdin.write(json.dumps(self._things) + "\n")
            process.stdin.flush()


# The fleet, and whoever changes its facts


@dataclass(eq=False)
class Fleet:
    """A served installation whose facts are changed while it is read."""

    installation: Any
    gateway: Any
    tokens: dict
    key_ids: dict
    server: Any = None
    proxy: Any = None
    sign: Any = None  # makes what is sent in the place of a key; None: the key itself is sent

    def presented(self, who):
        return self.present(self.tokens[who], self.key_ids.get(who), who)

    def present(self, token, key_id, tenant):
        return token if self.sign is None else self.sign(key_id, tenant)

    @property
    def wire(self):
        return self.gateway.wire

    def serve(self, workers):
        """Workers reach the facts through the proxy, commands go straight."""
        environment = self.installation.environment
        if self.proxy is not None:
            environment["CACHEGATE_REDIS_URL"] = self.proxy.url
        try:
            self.gateway = self.installation.serve(workers=workers)
        finally:
            if self.server is not None:
                environment["CACHEGATE_REDIS_URL"] = self.server.url

    def close(self):
        if self.gateway is not None:
            for pid in self.gateway.worker_pids():
                os.kill(pid, signal.SIGCONT)
            self.gateway.stop()
        if self.proxy is not None:
            self.proxy.close()
        if self.server is not None:
            self.server.kill()
            shutil.rmtree(self.server.folder)
        if self.gateway is not None:
            assert "Traceback" not in self.gateway.log(), self.gateway.log()

    def get(self, model, who="acme"):
        return self.wire.get(path_of(model), self.tokens[who])

    def checks(self):
        """What /readyz says, check by check."""
        return self.gateway.ops.get("/readyz").json()["checks"]

    def change(self, operation, *, action="test.change", **more):
        """Make one change as a command does; what it came to."""

        async def work(session):
            return await session.perform(action, operation, **more)

        return self.installation.in_session(work)

    def revoke(self, who):
        now = time.time()  # noqa: TID251 -- when an operator does it
        key_id = self.key_ids[who]
        return self.change(lambda changes: keys.revoke_key(changes, key_id=key_id, now=now), key_id=key_id)

    def new_key(self, who, tenant, *, lives_seconds=None):
        async def work(session):
            new = mint(session, tenant, lives_seconds)
            create = lambda changes: keys.create_key(changes, key=new.key, digest=new.digest)  # noqa: E731
            await session.perform("keys.create", create, tenant=tenant)
            return new

        new = self.installation.in_session(work)
        self.tokens[who], self.key_ids[who] = new.token, new.key.key_id
        return new


def mint(session, tenant, lives_seconds=None):
    now = session.clock.now()
    expires_at = None if lives_seconds is None else now + lives_seconds
    order = KeyOrder(now=now, kind=KeyKind.TENANT, tenant=parse_tenant_id(tenant), expires_at=expires_at)
    return issue_key(order, environment="test", peppers=session.peppers)


class Changer:
    """Changes one thing after the other, back and forth, each with its barrier. Lives within an session."""

    def __init__(self, session, fleet, readers, ledger):
        self.session, self.fleet, self.readers, self.ledger = session, fleet, readers, ledger
        self.key = None  # of the key things: the one that lives now
        self.failures = 0
        self._shown_keys = []
        self._folders = fleet.installation.folder / "with", fleet.installation.folder / "without"
        self._loaded = [load_folder(folder) for folder in self._folders]
        self._random = random.Random(11)

    async def begin(self):
        """Bring all things into a known state, whatever an earlier test left, before anybody reads."""
        acme, umbrella = parse_tenant_id("acme"), parse_tenant_id("umbrella")
        folder, now = self._loaded[1], self.session.clock.now()

        async def operation(changes):
            await tenants.resume_tenant(changes, tenant_id=umbrella)
            await grants.remove_grants(changes, tenant_id=acme, models=[parse_pattern("globex/lent/*")])
            await models.unpublish(changes, patterns=[parse_pattern("globex/shown/*")])
            await apply_folder(changes, folder, now)

        await self.session.perform("test.begin", operation)
        token = {who: self.fleet.presented(who) for who in self.fleet.tokens}
        things = {
            "grant:lent": (HIDDEN, request_for(path_of(LENT), token["acme"])),
            "tenant:umbrella": (ALLOWED, request_for("/v1/whoami", token["umbrella"])),
            "publish:shown": (HIDDEN, request_for(path_of(SHOWN), token["acme"])),
            "policy:held": (ALLOWED, request_for(path_of(HELD), token["acme"])),
            "calm:owned": (ALLOWED, request_for(path_of(OWNED), token["acme"])),
        }
        for thing, (status, _) in things.items():
            self.ledger.begin(thing, status)
        self.readers.show({thing: raw for thing, (_, raw) in things.items()})
        await self._announce_key()
        self.steps = (self.grant, self.suspend, self.publish, self.toggle_key, self.rotate, self.apply_policy)

    async def step(self):
        """One change of any kind; rules take longest to apply and come less often."""
        await self._random.choices(self.steps, weights=(4, 4, 4, 4, 3, 1))[0]()

    async def step_if_possible(self):
        """One change, or none: a fault may be in its way, and then nobody knows whether it was made."""
        try:
            await self.step()
        except (Unavailable, Conflict):
            self.failures += 1
            self.key = None

    async def grant(self):
        give = self.ledger.status("grant:lent") != ALLOWED
        what = {"tenant_id": parse_tenant_id("acme"), "models": [parse_pattern("globex/lent/*")]}

        def operation(changes):
            if give:
                return grants.add_grants(changes, **what, actions=("read",))
            return grants.remove_grants(changes, **what)

        flips = {"grant:lent": ALLOWED if give else HIDDEN}
        await self.make(flips, "grants.add" if give else "grants.remove", operation, tenant="acme")

    async def suspend(self):
        suspends = self.ledger.status("tenant:umbrella") == ALLOWED
        work = tenants.suspend_tenant if suspends else tenants.resume_tenant
        umbrella = parse_tenant_id("umbrella")
        flips = {"tenant:umbrella": NOBODY if suspends else ALLOWED}
        await self.make(
            flips, "tenants.suspend", lambda changes: work(changes, tenant_id=umbrella), tenant="umbrella"
        )

    async def publish(self):
        shows = self.ledger.status("publish:shown") != ALLOWED
        work = models.publish if shows else models.unpublish
        pattern = [parse_pattern("globex/shown/*")]
        flips = {"publish:shown": ALLOWED if shows else HIDDEN}
        await self.make(flips, "models.publish", lambda changes: work(changes, patterns=pattern))

    async def toggle_key(self):
        """Revoke the key that lives; the next time a new one is created, which readers tried before."""
        if self._is_key_live():
            key_id, now = self.key.key.key_id, self.session.clock.now()
            await self.make(
                {self._thing(self.key): NOBODY},
                "keys.revoke",
                lambda changes: keys.revoke_key(changes, key_id=key_id, now=now),
                key_id=key_id,
            )
        else:
            await self._announce_key()
            new = self.key
            await self.make(
                {self._thing(new): ALLOWED},
                "keys.create",
                lambda changes: keys.create_key(changes, key=new.key, digest=new.digest),
                key_id=new.key.key_id,
            )

    async def rotate(self):
        """Replace the key that lives by another in one step, without an overlap."""
        old = self.key
        if not self._is_key_live():
            await self.toggle_key()
            return
        await self._announce_key()
        new, now = self.key, self.session.clock.now()
        await self.make(
            {self._thing(old): NOBODY, self._thing(new): ALLOWED},
            "keys.rotate",
            lambda changes: keys.rotate_key(
                changes,
                key_id=old.key.key_id,
                successor=new.key,
                digest=new.digest,
                now=now,
                overlap_seconds=0.0,
            ),
            key_id=old.key.key_id,
        )

    async def apply_policy(self):
        forbids = self.ledger.status("policy:held") == ALLOWED
        folder, now = self._loaded[0 if forbids else 1], self.session.clock.now()
        flips = {"policy:held": HIDDEN if forbids else ALLOWED}
        await self.make(flips, "policy.apply", lambda changes: apply_folder(changes, folder, now))

    async def make(self, flips, action, operation, **more):
        """One change and its barrier, in the ledger. What is not sure does not bind anybody."""
        began_at, returned_at = time.monotonic(), NEVER
        try:
            done = await self.session.perform(action, operation, **more)
            if done.barrier.is_sure:
                returned_at = time.monotonic()
            self.ledger.changes += 1
            self.ledger.barriers.append(done.barrier)
        finally:
            self.ledger.note(flips, began_at, returned_at)

    async def by_command(self, flips, *command):
        """The same by the command itself, in a process of its own."""
        began_at, returned_at = time.monotonic(), NEVER
        done = await asyncio.to_thread(self.fleet.installation.run, *command, status=None)
        if done.returncode == 0:
            returned_at = time.monotonic()
            self.ledger.changes += 1
        self.ledger.note(flips, began_at, returned_at)
        assert done.returncode == 0, done.stderr

    async def commands(self):
        """Each kind of change once, back and forth, by the command that an operator types."""
        if not self._is_key_live():
            await self.toggle_key()
        key_id = self.key.key.key_id
        await self.by_command({self._thing(self.key): NOBODY}, "keys", "revoke", key_id)
        if self.ledger.status("tenant:umbrella") != ALLOWED:
            await self.suspend()
        await self.by_command({"tenant:umbrella": NOBODY}, "tenants", "suspend", "umbrella")
        await self.by_command({"tenant:umbrella": ALLOWED}, "tenants", "resume", "umbrella")
        if self.ledger.status("grant:lent") == ALLOWED:
            await self.grant()
        grant = ("--tenant", "acme", "--models", "globex/lent/*")
        await self.by_command({"grant:lent": ALLOWED}, "grants", "add", *grant)
        await self.by_command({"grant:lent": HIDDEN}, "grants", "remove", *grant)
        if self.ledger.status("policy:held") != ALLOWED:
            await self.apply_policy()
        forbidding, permitting = map(str, self._folders)
        await self.by_command({"policy:held": HIDDEN}, "policy", "apply", forbidding, "--yes")
        await self.by_command({"policy:held": ALLOWED}, "policy", "apply", permitting, "--yes")

    async def _announce_key(self):
        """A key that nobody knows yet: readers try it, so that its absence is remembered, too."""
        self.key = mint(self.session, "acme")
        thing = self._thing(self.key)
        self.ledger.begin(thing, NOBODY)
        self._shown_keys.append(thing)
        if len(self._shown_keys) > KEYS_SHOWN:
            self.readers.drop(self._shown_keys.pop(0))
        presented = self.fleet.present(self.key.token, self.key.key.key_id, "acme")
        self.readers.show({thing: request_for(path_of(OWNED), presented)})
        await asyncio.sleep(0.01)

    def _is_key_live(self):
        return self.key is not None and self.ledger.status(self._thing(self.key)) == ALLOWED

    @staticmethod
    def _thing(new):
        return f"key:{new.key.key_id}"


def furnish(installation):
    """Three tenants: acme owns and borrows, umbrella comes and goes, globex lends."""
    samples = [
        SampleModel(model_id=model, packages={PACKAGE: {"weights.onnx": CONTENT}})
        for model in (OWNED, LENT, SHOWN, HELD)
    ]
    write_sample_cache(installation.cache_root, samples)
    for name in ("without", "with"):
        folder = installation.folder / name
        (folder / "tenants").mkdir(parents=True)
        for source in (*CHECKOUT_POLICIES.glob("*.cedar"), CHECKOUT_POLICIES / "schema.cedarschema"):
            shutil.copy(source, folder)
    (installation.folder / "with" / "held.cedar").write_text(FORBID_HELD)
    without = load_folder(installation.folder / "without")

    async def work(session):
        now = session.clock.now()
        minted = {who: mint(session, who) for who in ("acme", "globex", "umbrella")}

        async def operation(changes):
            for who, new in minted.items():
                tenant = parse_tenant_id(who)
                await tenants.create_tenant(changes, tenant_id=tenant, name=who, now=now)
                await models.own(changes, tenant_id=tenant, patterns=[parse_pattern(f"{who}/*")])
                await keys.create_key(changes, key=new.key, digest=new.digest)
            await apply_folder(changes, without, now)

        await session.perform("fleet.furnish", operation)
        return minted

    minted = installation.in_session(work)
    return (
        {who: new.token for who, new in minted.items()},
        {who: new.key.key_id for who, new in minted.items()},
    )


@dataclass
class Watched:
    """Readers, the ledger of what was changed meanwhile, and what they saw."""

    readers: Readers
    ledger: Ledger
    observations: list = field(default_factory=list)

    def judged(self):
        """The verdict, once it is over. Readers that saw no allow or no denial prove nothing."""
        verdict = self.ledger.judge(self.observations)
        assert verdict.violations == [], f"{len(verdict.violations)} of {len(self.observations)} answers"
        assert verdict.seen(ALLOWED) > 0
        assert verdict.seen(NOBODY) + verdict.seen(HIDDEN) > 0
        return verdict

    def report(self, verdict):
        slowest = max((one.milliseconds for one in self.ledger.barriers), default=0.0)
        median = statistics.median(one.milliseconds for one in self.ledger.barriers)
        print(
            f"{self.ledger.changes} changes, {verdict.total} of {len(self.observations)} answers bound "
            f"({dict(sorted(verdict.checked.items()))}), {verdict.free} free, {verdict.undecided} undecided, "
            f"{verdict.broken_off} broken off; barrier median {median} ms, slowest {slowest} ms"
        )
