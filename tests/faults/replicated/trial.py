"""A trial: gateways that are read all the time while several nodes change the facts, and what is judged.

Changes are made by `cachegate` commands on nodes with state folders of their own (`Operator`), and by the
operations that the commands use, each in a session of its own, which is faster (`Changer`). A phase is
*calm* when nothing is broken: then every change has to be sure. While something happens, changes go on and
may not be; a change that was sure binds every answer after it, whatever happens later.

Every answer is compared with what was changed when (`Ledger`), and with the audit record that it names.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.configuration.sources import load_settings
from gateway.directory.edits import keys, models, tenants
from gateway.model.errors import Conflict, Unavailable
from gateway.model.names import parse_pattern, parse_tenant_id
from gateway.operations.setup import set_up
from tests.conftest import wait_until
from tests.fleet import (
    ALLOWED,
    CONTENT,
    HIDDEN,
    LENT,
    NEVER,
    NOBODY,
    OWNED,
    PACKAGE,
    UNDECIDED,
    Changer,
    Fleet,
    Ledger,
    Observation,
    Readers,
    furnish,
    mint,
    path_of,
    request_for,
)

KEYS_SHOWN = 5  # of each operator; the last ones that were revoked are asked for on and on
RECOVERY_SECONDS = 60.0
SETTINGS = {"CACHEGATE_SCAN_SECONDS": "3600", "CACHEGATE_GRACE_SECONDS": "1"}


@dataclass(frozen=True)
class Made:
    """One change by a command: what it was to come to, and what the command said."""

    command: tuple
    began_at: float
    status: int
    out: str
    err: str

    @property
    def is_sure(self):
        """Whether it is certain: status 1 is, where an older copy does not have what was to be removed."""
        return self.status == 0 or bool(self.document.get("missing") and self.document["sure"])

    @property
    def document(self):
        return json.loads(self.out) if self.out.startswith("{") else {}


class Operator:
    """Runs commands on a node of its own, one after the other, about a tenant of its own."""

    def __init__(self, node, tenant, token, trial, machine):
        self.node, self.tenant, self.machine = node, tenant, machine
        self._trial, self._token = trial, token
        self._live, self._shown = [], []
        self._turn = 0
        program = str(Path(__file__).with_name("commands.py"))
        with machine.entered():
            self._process = subprocess.Popen(
                [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env=node.variables(), cwd=node.folder,
            )  # fmt: skip

    def begin(self):
        thing = f"lent:{self.tenant}"
        self._trial.ledger.begin(thing, HIDDEN)
        self._trial.readers.show({thing: request_for(path_of(LENT), self._token)})

    def step(self):
        """The next change; each kind has its turn, so that a revocation follows each creation."""
        kinds = (self.create_key, self.add_grant, self.revoke_key, self.remove_grant)
        self._turn += 1
        return kinds[self._turn % len(kinds)]()

    def create_key(self):
        made, done = self.run("keys", "create", "--tenant", self.tenant, "--json")
        if "token" in made.document:  # it is there, whether it is sure or not
            key_id = made.document["key_id"]
            thing = f"key:{key_id}"
            self._trial.ledger.begin(thing, NOBODY)
            self._note({thing: ALLOWED}, made, done)
            self._live.append((key_id, made.is_sure))
            self._shown.append(thing)
            if len(self._shown) > KEYS_SHOWN:
                self._trial.readers.drop(self._shown.pop(0))
            self._trial.readers.show(
                {thing: request_for(path_of(f"{self.tenant}/own/1"), made.document["token"])}
            )
        return made

    def revoke_key(self):
        if not self._live:
            return self.create_key()
        key_id, was_sure = self._live.pop(0)
        made, done = self.run("keys", "revoke", key_id, "--json")
        if made.status == 1 and not made.document:  # no such key: its creation was not sure, and was undone
            assert not was_sure, made
            return self.create_key()
        self._note({f"key:{key_id}": NOBODY}, made, done)
        return made

    def add_grant(self):
        return self._grant("add", ALLOWED)

    def remove_grant(self):
        return self._grant("remove", HIDDEN)

    def _grant(self, word, status):
        made, done = self.run("grants", word, "--tenant", self.tenant, "--models", "globex/lent/*", "--json")
        self._note({f"lent:{self.tenant}": status}, made, done)
        return made

    def _note(self, flips, made, done):
        self._trial.ledger.note(flips, done["began_at"], done["returned_at"] if made.is_sure else NEVER)
        self._trial.counted["sure" if made.is_sure else "not sure"] += 1

    def run(self, *command):
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        done = json.loads(self._process.stdout.readline())
        assert "Traceback" not in done["err"], done["err"]
        return Made(command, done["began_at"], done["status"], done["out"], done["err"]), done

    def await_sure(self):
        """Make changes until one is sure."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        while not (made := self.step()).is_sure:
            assert time.monotonic() < deadline, made

    def forget(self):
        self._live.clear()

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class AllReaders:
    """The readers of all gateways, told by several threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._each = []

    def add(self, wire, folder, machine):
        with machine.entered():
            self._each.append(Readers(wire, folder, processes=1, connections=4, pause_seconds=0.005))

    def show(self, things):
        with self._lock:
            for one in self._each:
                one.show(things)

    def drop(self, *things):
        with self._lock:
            for one in self._each:
                one.drop(*things)

    def stop(self):
        """What each saw, in the order in which they were added."""
        return [one.stop() for one in self._each]

    def kill(self):
        for one in self._each:
            one.kill()


@dataclass
class Served:
    """A gateway, and the machine that it runs on."""

    running: object
    machine: object

    def is_ready(self):
        with self.machine.entered():
            return self.running.is_ready()

    def checks(self):
        with self.machine.entered():
            return self.running.ops.get("/readyz").json()["checks"]

    def status_of(self, path, token):
        with self.machine.entered():
            return self.running.wire.get(path, token).status


class Trial:
    """See above. Gateways run on `machines`, operators on them in turn, the changer on the last."""

    def __init__(self, url, new_installation, folder, *, machines, operators=2, **environment):
        self.ledger, self.readers = Ledger(), AllReaders()
        self.counted = Counter()
        self.last_failure = None  # of a change by the operations, or its barrier
        self.gateways, self.operators = [], []
        self._folder = folder
        self._new_installation = new_installation
        self._environment = {**SETTINGS, "CACHEGATE_REDIS_URL": url, **environment}
        self._machines = list(machines)
        self._first = None
        self._asked = []  # answers of the first gateway that the test itself asked for
        self._open = ExitStack()
        with self._machines[-1].entered():
            self._first = self.node("changer")
            self.tokens, key_ids = furnish(self._first)
            self._furnish_operators(operators)
            fleet = Fleet(self._first, None, self.tokens, key_ids)
        self.nodes = [self._first]
        for machine in self._machines:
            with machine.entered():
                node = self.node("gateway")
                self.nodes.append(node)
                running = node.serve(workers=2)
            self.gateways.append(Served(running, machine))
            self.readers.add(running.wire, folder, machine)
        for number in range(operators):
            machine = self._machines[number % len(self._machines)]
            tenant = f"op{number}"
            with machine.entered():
                node = self.node(tenant)
            self.nodes.append(node)
            self.operators.append(Operator(node, tenant, self.tokens[tenant], self, machine))
        self.changer = Changer(None, fleet, self.readers, self.ledger)
        self._in_session(self.changer.begin)
        for one in self.operators:
            one.begin()

    def node(self, name):
        """A state folder of its own, with the peppers that all nodes share, and the same cache."""
        if self._first is None:
            return self._new_installation(name, **self._environment, CACHEGATE_NODE=name)
        made = self._new_installation.without_init(name, **self._environment, CACHEGATE_NODE=name)
        made.state.mkdir(mode=0o700)
        shutil.copytree(self._first.state / "peppers", made.state / "peppers")
        made.environment["CACHEGATE_CACHE_ROOT"] = str(self._first.cache_root)
        asyncio.run(set_up(load_settings(made.variables())))  # `cachegate init`, without a process of its own
        return made

    def _furnish_operators(self, count):
        names = [f"op{number}" for number in range(count)]
        samples = [
            SampleModel(model_id=f"{name}/own/1", packages={PACKAGE: {"weights.onnx": CONTENT}})
            for name in names
        ]
        write_sample_cache(self._first.cache_root, samples)

        async def work(session):
            minted = {name: mint(session, name) for name in names}

            async def operation(changes):
                for name, new in minted.items():
                    tenant = parse_tenant_id(name)
                    await tenants.create_tenant(changes, tenant_id=tenant, name=name, now=0.0)
                    await models.own(changes, tenant_id=tenant, patterns=[parse_pattern(f"{name}/*")])
                    await keys.create_key(changes, key=new.key, digest=new.digest)

            await session.perform("test.furnish", operation)
            return {name: new.token for name, new in minted.items()}

        self.tokens |= self._first.in_session(work)

    def _in_session(self, work):
        async def within(session):
            self.changer.session = session
            await work()

        with self._machines[-1].entered():
            self._first.in_session(within)

    def change_once(self):
        """One change by the operations, in an session of its own; whether it was sure."""
        before, key = len(self.ledger.barriers), self.changer.key
        was_sure = key is not None and self.ledger.is_sure(f"key:{key.key.key_id}")
        try:
            self._in_session(self.changer.step)
        except Conflict as conflict:  # no such key: its creation was not sure, and was undone
            if key is None or was_sure:
                raise AssertionError("a change that was sure was undone") from conflict
            self.changer.key = None
            return self.change_once()
        except Unavailable as failure:
            self.changer.key, self.last_failure = None, failure
        made = self.ledger.barriers[before:]
        if made:
            self.last_failure = made[-1]
        is_sure = bool(made) and all(one.is_sure for one in made)
        self.counted["sure" if is_sure else "not sure"] += 1
        return is_sure

    def forget_keys(self):
        """The facts are others now: keys that were made may not be there."""
        self.changer.key = None
        for one in self.operators:
            one.forget()

    # Keys that nobody asks for but by `ask_for`

    def create_quiet_keys(self, count):
        """Keys of one change, which has to be sure; nobody asks for them yet. Gives what was minted."""
        minted = []

        async def create(session):
            minted.extend(mint(session, "acme") for _ in range(count))

            async def operation(changes):
                for new in minted:
                    await keys.create_key(changes, key=new.key, digest=new.digest)

            return await session.perform("keys.create", operation)

        with self._machines[-1].entered():
            done = self._first.in_session(create)
        assert done.barrier.is_sure, done.barrier
        for new in minted:
            self.ledger.begin(f"quiet:{new.key.key_id}", ALLOWED)
        return minted

    def revoke_quiet_keys(self, minted):
        """All in one change, or again, as soon as it can be made; gives its barrier."""
        began_at = time.monotonic()
        deadline = began_at + RECOVERY_SECONDS

        async def revoke(session):
            async def operation(changes):
                for new in minted:
                    await keys.revoke_key(changes, key_id=new.key.key_id, now=session.clock.now())

            return await session.perform("keys.revoke", operation)

        barrier = None
        while barrier is None:
            try:
                with self._machines[-1].entered():
                    barrier = self._first.in_session(revoke).barrier
            except Unavailable:  # the failover is not over: the new primary has no replica yet
                if time.monotonic() > deadline:
                    raise
        returned_at = time.monotonic() if barrier.is_sure else NEVER
        self.ledger.note({f"quiet:{new.key.key_id}": NOBODY for new in minted}, began_at, returned_at)
        return barrier

    def ask_for(self, minted, times=4):
        """Ask for each of them so many times, all at once: each connection to the facts is in use then."""
        served = self.gateways[0]

        def ask(new):
            for _ in range(times):
                sent_at = time.monotonic()
                answer = served.running.wire.get(path_of(OWNED), new.token)
                thing = f"quiet:{new.key.key_id}"
                record_id = answer.header("cachegate-record") or ""
                self._asked.append(Observation(sent_at, time.monotonic(), answer.status, thing, record_id))

        for thread in [_Thread(ask, new) for new in minted]:
            thread.end()

    # Phases

    def calm(self, changes=2):
        """Nothing is broken: everybody makes so many changes, all at once, and every one is sure."""
        made, refused = self._all_at_once(changes)
        assert refused == [], refused
        unsure = [one for one in made if not one.is_sure]
        assert unsure == [], unsure

    def _all_at_once(self, changes):
        made, refused, threads = [], [], []

        def operate(operator):
            made.extend(operator.step() for _ in range(changes))

        def change():
            refused.extend(self.last_failure for _ in range(4 * changes) if not self.change_once())

        threads = [_Thread(operate, one) for one in self.operators]
        threads.append(_Thread(change))
        for thread in threads:
            thread.end()
        return made, refused

    @contextmanager
    def changing(self):
        """Within it, changes are made all the time; gives what counts them."""
        ending = threading.Event()
        progress = Progress(self)

        def operate(operator):
            while not ending.is_set():
                progress.made[operator.tenant].append(operator.step())

        def change():
            while not ending.is_set():
                self.change_once()

        threads = [_Thread(operate, one) for one in self.operators]
        threads.append(_Thread(change))
        try:
            yield progress
        finally:
            ending.set()
            for thread in threads:
                thread.end()

    def await_served(self, *gateways):
        """Until these gateways, or all, allow again what is allowed all the time."""
        for one in gateways or self.gateways:
            wait_until(
                lambda one=one: one.status_of(path_of(OWNED), self.tokens["acme"]) == ALLOWED,
                RECOVERY_SECONDS,
            )

    def await_sure(self):
        """Until all is well again without anybody's help."""
        self.await_served()
        for one in self.gateways:
            wait_until(one.is_ready, RECOVERY_SECONDS)
        deadline = time.monotonic() + RECOVERY_SECONDS
        while not self.change_once():
            assert time.monotonic() < deadline, self.last_failure

    def recover(self, group):
        """Until all servers are back and all is well, without anybody's help."""
        group.hurry(is_on=True)
        wait_until(group.is_whole)
        group.hurry(is_on=False)
        self.await_sure()

    # The end

    def finish(self):
        """End it, and judge all that was seen; gives the answers by gateway."""
        by_gateway = self.readers.stop()
        by_gateway[0] += self._asked
        seen = [one for each in by_gateway for one in each]
        verdict = self.ledger.judge(seen)
        print(
            f"{self.counted['sure']} changes sure, {self.counted['not sure']} not; {verdict.total} of "
            f"{len(seen)} answers bound ({dict(sorted(verdict.checked.items()))}), {verdict.free} free, "
            f"{verdict.undecided} undecided, {verdict.broken_off} broken off"
        )
        assert verdict.violations == [], (
            f"{len(verdict.violations)} of {len(seen)} answers: {verdict.violations[:3]}"
        )
        for kind in ("key", "lent"):
            assert verdict.checked[kind, ALLOWED] > 0
        assert verdict.checked["key", NOBODY] > 0
        assert verdict.checked["lent", HIDDEN] > 0
        for served, answers in zip(self.gateways, by_gateway, strict=True):
            verify_records(served.running.installation, answers)
        return by_gateway

    def close(self):
        self.readers.kill()
        for one in self.operators:
            one.close()
        for one in self.gateways:
            with one.machine.entered():
                one.running.stop()
        for one in self.gateways:
            assert "Traceback" not in one.running.log(), one.running.log()


class Progress:
    """What the operators have done since a phase began."""

    def __init__(self, trial):
        self.made = {one.tenant: [] for one in trial.operators}

    def await_changes(self, count=1, *operators):
        """Until these operators, or all, have begun and ended so many more changes."""
        tenants_ = [one.tenant for one in operators] or list(self.made)
        # The one that is under way began before.
        wanted = {tenant: len(self.made[tenant]) + count + 1 for tenant in tenants_}
        wait_until(lambda: all(len(self.made[tenant]) >= number for tenant, number in wanted.items()))

    def all(self):
        return [one for each in self.made.values() for one in each]


class _Thread(threading.Thread):
    """A thread whose failure is raised by whoever ends it."""

    def __init__(self, work, *arguments):
        super().__init__(daemon=True)
        self._work, self._arguments, self._failure = work, arguments, None
        self.start()

    def run(self):
        try:
            self._work(*self._arguments)
        except BaseException as error:  # noqa: BLE001 -- raised by `end`
            self._failure = error

    def end(self):
        self.join()
        if self._failure is not None:
            raise self._failure


def verify_records(installation, answers):
    """Every answer that names a record says what the record says, and every allow names one."""
    decisions, endings = {}, {}
    for record in installation.records():
        if record["kind"] in {"decision", "summary"}:
            assert record["id"] not in decisions
            decisions[record["id"]] = record
        elif record["kind"] == "outcome":
            endings[record["decision_id"]] = record["ending"]
    faults = []
    for one in answers:
        decision = decisions.get(one.record_id)
        is_allow = decision is not None and decision.get("decision") == "allow"
        if one.status == ALLOWED:
            is_right = is_allow
        elif one.status == UNDECIDED:  # an allow may have been withdrawn before its first byte
            is_right = not is_allow or endings.get(one.record_id) != "complete"
        else:  # not every refusal of a stranger has a record of its own: many are summed up
            is_right = one.status == 0 or (not is_allow and one.status in {NOBODY, HIDDEN})
        if not is_right:
            faults.append((one, decision))
    assert faults == [], f"{len(faults)} answers: {faults[:3]}"
