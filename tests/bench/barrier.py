"""How long a change takes until it is true in every worker, and whether it then is.

Four things are opened and closed in turn: a tenant (suspended, resumed), a grant (removed, added), a model
(unpublished, published) and a key (revoked; then the next key is used). Each is requested all the time while
there is load; without load it is requested eight times after each change. An answer counts as stale when it
is an allow, its request was sent after the change that closed access had returned, and it came before access
was opened again.
"""

from __future__ import annotations

import asyncio
import http.client
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from installation import Installation, new_key
from load import Load, Target, reading

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.directory.edits import keys, models, tenants
from gateway.directory.edits.grants import add_grants, remove_grants
from gateway.model.names import parse_pattern, parse_tenant_id
from gateway.model.verdicts import Change
from gateway.operations.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.operations.session import OperatorSession

PROCESSES, CONNECTIONS = 2, 16  # of readers, and connections of each
CHANGES_PER_ROUND = 7
PROBES = 8
HOLD_SECONDS = 0.015  # how long a state lasts under load, so that every reader asks while it does
PACKAGE, FILE_NAME = "pkgB1", "weights.onnx"
FOREVER = float("inf")
OK, REFUSED = range(200, 300), (401, 403, 404)
TENANT, GRANT, MODEL, KEY = range(4)
NAMES = ("b0", "b1", "b2", "b3")


@dataclass
class Timeline:
    """When each thing was open and closed: from when a change had returned to when the next one began."""

    spans: list[tuple[int, int, bool, float, float]] = field(default_factory=list)
    _last: dict[tuple[int, int], tuple[bool, float]] = field(default_factory=dict)

    def began(self, target: int, key: int) -> None:
        """A change of this thing begins: nobody can say from here on what holds."""
        is_open, since = self._last.pop((target, key), (True, FOREVER))
        if since < FOREVER:
            self.spans.append((target, key, is_open, since, time.monotonic()))

    def returned(self, target: int, key: int, *, is_open: bool) -> None:
        """It returned: this holds now."""
        self._last[target, key] = (is_open, time.monotonic())

    def end(self) -> None:
        """What is last known holds to the end."""
        for (target, key), (is_open, since) in self._last.items():
            self.spans.append((target, key, is_open, since, FOREVER))
        self._last.clear()


@dataclass
class Barriers:
    """What one condition came to."""

    waits: list[float] = field(default_factory=list)  # from the commit until the change may return
    wholes: list[float] = field(default_factory=list)  # of the whole change: record, commit, barrier
    stale: int = 0
    late: int = 0  # refusals of what was open again
    judged: int = 0  # answers whose state was known
    undecided: int = 0
    answers: int = 0
    unsure: int = 0
    seconds: float = 0.0


@dataclass
class _Scene:
    """The things that change, and who asks for them."""

    targets: list[Target]
    key_ids: list[str]


async def measure(
    installation: Installation, port: int, *, rounds: int, is_loaded: bool, advance: Any
) -> Barriers:
    """Change and watch, so many times."""
    outcome, timeline = Barriers(), Timeline()
    async with open_session(installation.settings) as session:
        scene = await _set_up(session, rounds)
        with _watching(port, scene, is_loaded=is_loaded) as watch:
            if is_loaded:
                await asyncio.sleep(1.0)  # until the readers are under way
            started = time.monotonic()
            for number in range(rounds):
                for target, operation, action, about, is_open in _changes(scene, number, session):
                    key = number if target == KEY else 0
                    timeline.began(target, key)
                    begun_at = time.perf_counter()
                    done = await session.perform(action, operation, **about, wait=False)
                    committed_at = time.perf_counter()
                    change = Change(actor="bench", action=action, received_at=0.0, **about)
                    barrier = await session.await_workers(change, done.moment)
                    returned_at = time.perf_counter()
                    timeline.returned(target, key, is_open=is_open)
                    outcome.waits.append((returned_at - committed_at) * 1000)
                    outcome.wholes.append((returned_at - begun_at) * 1000)
                    outcome.unsure += not barrier.is_sure
                    await watch.look(target, key)
                    if target == KEY:
                        timeline.began(KEY, number + 1)
                        watch.use_key(number + 1)
                        timeline.returned(KEY, number + 1, is_open=True)
                    advance()
            timeline.end()
            await asyncio.sleep(0.1)
            outcome.seconds = time.monotonic() - started
        _judge(outcome, timeline, watch.seen)
    return outcome


def write_cache(installation: Installation) -> None:
    """A model for each of the things that change."""
    write_sample_cache(
        installation.settings.cache_root,
        [
            SampleModel(model_id=f"{one}/m", packages={PACKAGE: {FILE_NAME: one.encode() * 500}})
            for one in NAMES
        ],
    )


async def _set_up(session: OperatorSession, rounds: int) -> _Scene:
    """A tenant and a model for each thing, and a key for each revocation."""
    now = session.clock.now()
    names = NAMES
    made = [[new_key(session.peppers, one, now)] for one in names[:3]]
    made.append([new_key(session.peppers, names[3], now) for _ in range(rounds + 1)])

    async def fill(changes: Any) -> None:
        for one in (*names, "owner"):
            await tenants.create_tenant(changes, tenant_id=parse_tenant_id(one), name=one, now=now)
        for one in (names[TENANT], names[KEY]):
            await models.own(changes, tenant_id=parse_tenant_id(one), patterns=[parse_pattern(f"{one}/*")])
        for one in (names[GRANT], names[MODEL]):
            await models.own(
                changes, tenant_id=parse_tenant_id("owner"), patterns=[parse_pattern(f"{one}/*")]
            )
        await add_grants(
            changes, tenant_id=parse_tenant_id("b1"), models=[parse_pattern("b1/*")], actions=["read"]
        )
        await models.publish(changes, patterns=[parse_pattern("b2/m")])
        for new in (new for keys_of in made for new in keys_of):
            await keys.create_key(changes, key=new.key, digest=new.digest)

    await session.perform("bench.fill", fill)
    targets = [
        Target(one, f"/v1/models/{one}/m/-/{PACKAGE}/{FILE_NAME}", tuple(str(new.token) for new in keys_of))
        for one, keys_of in zip(names, made, strict=True)
    ]
    return _Scene(targets, [new.key.key_id for new in made[KEY]])


def _changes(
    scene: _Scene, number: int, session: OperatorSession
) -> Iterator[tuple[int, Callable[..., Any], str, dict[str, Any], bool]]:
    """One round: every thing closed and, but for the key, opened again."""
    tenant, grantee = parse_tenant_id("b0"), parse_tenant_id("b1")
    granted, published = [parse_pattern("b1/*")], [parse_pattern("b2/m")]
    key_id = scene.key_ids[number]
    suspend, resume = (
        partial(one, tenant_id=tenant) for one in (tenants.suspend_tenant, tenants.resume_tenant)
    )
    remove = partial(remove_grants, tenant_id=grantee, models=granted)
    add = partial(add_grants, tenant_id=grantee, models=granted, actions=["read"])
    yield TENANT, suspend, "tenants.suspend", {"tenant": tenant}, False
    yield GRANT, remove, "grants.remove", {"tenant": grantee}, False
    yield MODEL, partial(models.unpublish, patterns=published), "models.unpublish", {}, False
    revoke = partial(keys.revoke_key, key_id=key_id, now=session.clock.now())
    yield KEY, revoke, "keys.revoke", {"key_id": key_id}, False
    yield TENANT, resume, "tenants.resume", {"tenant": tenant}, True
    yield GRANT, add, "grants.add", {"tenant": grantee}, True
    yield MODEL, partial(models.publish, patterns=published), "models.publish", {}, True


def _judge(outcome: Barriers, timeline: Timeline, seen: list[Any]) -> None:
    """Put every answer on the time line."""
    spans: dict[tuple[int, int], list[tuple[bool, float, float]]] = {}
    for target, key, is_open, since, until in timeline.spans:
        spans.setdefault((target, key), []).append((is_open, since, until))
    outcome.answers = len(seen)
    positions = dict.fromkeys(spans, 0)
    for target, key, sent_at, answered_at, status in sorted(seen, key=lambda one: one[2]):
        outcome.undecided += status == http.client.SERVICE_UNAVAILABLE
        of_this = spans.get((target, key), [])
        while positions.get((target, key), 0) < len(of_this) and of_this[positions[target, key]][2] < sent_at:
            positions[target, key] += 1
        if positions.get((target, key), 0) >= len(of_this):
            continue
        is_open, since, until = of_this[positions[target, key]]
        if since <= sent_at and answered_at <= until:
            outcome.judged += 1
            outcome.stale += not is_open and status in OK
            outcome.late += is_open and status in REFUSED


class _LoadWatch:
    """Readers that never stop."""

    def __init__(self, load: Load) -> None:
        self._load = load

    @property
    def seen(self) -> list[Any]:
        return self._load.seen

    async def look(self, _target: int, _key: int) -> None:
        await asyncio.sleep(HOLD_SECONDS)

    def use_key(self, key: int) -> None:
        self._load.key.value = key


class _ProbeWatch:
    """A few kept connections, which ask once each after every change."""

    def __init__(self, port: int, targets: list[Target]) -> None:
        self.seen: list[Any] = []
        self._targets = targets
        self._connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in range(PROBES)]

    async def look(self, target: int, key: int) -> None:
        about = self._targets[target]
        headers = {"Authorization": f"Bearer {about.tokens[key if target == KEY else 0]}"}
        for connection in self._connections:
            sent_at = time.monotonic()
            connection.request("GET", about.path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            self.seen.append((target, key, sent_at, time.monotonic(), answer.status))

    def use_key(self, key: int) -> None:
        """Each look says which one."""

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


@contextmanager
def _watching(port: int, scene: _Scene, *, is_loaded: bool) -> Iterator[Any]:
    if is_loaded:
        with reading(port, scene.targets, processes=PROCESSES, connections=CONNECTIONS) as load:
            yield _LoadWatch(load)
        return
    watch = _ProbeWatch(port, scene.targets)
    try:
        yield watch
    finally:
        watch.close()
