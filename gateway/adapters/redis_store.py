"""The fact store over Redis or Valkey: reads together with their moment, checked writes, transactions.

A read returns the moment (counter, mark and history) with the values, so that a cache can check that they
belong to the history that it follows. Every write first checks that the server has the moment noted by this
node in its past; a store without notes checks nothing and is for reading only. A transaction
(`redis_transaction.py`) runs its plan again if another process committed meanwhile; transactions of one
process wait for each other.

**Cancellation.** A request can be cancelled wherever it waits, and a connection returned to the pool with an
outstanding reply would give one caller's facts to the next. redis-py closes a connection that is cancelled in
mid-command, but a cancellation between two awaits of its own bookkeeping can still lose a connection from the
pool. So no cancellation ever reaches redis-py: every operation runs in a task of its own, which its caller
only waits for. A cancelled caller returns at once; the operation runs to its end, bounded by the timeouts,
and releases its connection. A transaction whose caller was cancelled may therefore still be committed, as it
may whenever a connection breaks.

Every error of redis-py, the system and timeouts is `Unavailable` and names the server. Non-goals: what the
records mean, caching, and following changes.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, TypeVar

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import PipelineCommand
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from gateway.adapters.redis_errors import may_be_repeated, root_of, translated
from gateway.adapters.redis_fleet import (
    HOLD,
    LEAVE,
    LET_GO,
    WORKERS,
    Fleet,
    LookWrite,
    keep_command,
    look_command,
    parse_look,
    prompt_command,
    seen_silent,
)
from gateway.adapters.redis_marks import (
    CHECK,
    COUNTER,
    GENERATION,
    GROUP,
    HISTORY,
    MARK,
    VERIFY,
    check_arguments,
    check_keys,
    counted,
    parse_group,
    parse_moment,
)
from gateway.adapters.redis_rights import find_missing_rights
from gateway.adapters.redis_server import ServerReport, load_server_report
from gateway.adapters.redis_transaction import attempt
from gateway.adapters.redis_url import RedisLimits, make_client, make_place, parse_redis_url
from gateway.model.errors import NotHeld, Unavailable, UnknownHistory
from gateway.model.stores import Moment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from redis.asyncio import Redis

    from gateway.adapters.history_file import HistoryFile
    from gateway.adapters.redis_place import ServerAddress
    from gateway.model.stores import Batch, FactSnapshot, GroupSize

_T = TypeVar("_T")

_SHORTEST_PAUSE_SECONDS = 0.002  # about one transaction; doubled after each conflict
_LONGEST_PAUSE_SECONDS = 0.1

HOLD_SECONDS = 0.2  # how long a worker's write waits for the replicas; healthy ones take 1 ms
FIRST_PROMPT_SECONDS = 0.001
LONGEST_PROMPT_SECONDS = 0.02  # a replica that is gone is waited for with few writes

PUT_FOR = (
    CHECK
    + b"""
if known == 0 then return -1 end
for i = 3, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 3], 'PX', ARGV[5]) end
return 1
"""
)

PUT_HASH = (
    CHECK
    + b"""
if known == 0 then return -1 end
for i = 5, #ARGV, 2 do
    if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[3], ARGV[i])
    else redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
end
return 1
"""
)


class RedisStore:
    """`FactStore` of `model/stores`. Belongs to one event loop; `close` it there."""

    def __init__(
        self, url: str, *, limits: RedisLimits | None = None, history: HistoryFile | None = None
    ) -> None:
        self._limits = limits or RedisLimits()
        self._address = parse_redis_url(url)
        self._place = make_place(self._address, self._limits)
        self._client: Redis | RedisCluster = make_client(self._address, self._limits, self._place)
        self._number = 0  # of the place, when the cluster client last looked up its nodes
        self._history = history
        self._group: int | None = None  # servers, as last observed
        self._slots = asyncio.Semaphore(self._limits.pool_connections)
        self._writing = asyncio.Lock()  # transactions of this process do not race each other
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def display(self) -> str:
        """The server's address, without credentials."""
        return self._address.display

    @property
    def place(self) -> ServerAddress:
        """The server's address, shared with the feed."""
        return self._place

    def move(self) -> None:
        """Invalidate all connections that are open now: the server may have been replaced by another."""
        self._place.move()

    async def read(self, names: Sequence[bytes]) -> tuple[Moment, list[bytes | None]]:
        """Return the moment and the values of these names at that moment, in one round trip."""
        if not names:
            return await self.moment(), []

        async def fetch() -> tuple[Moment, list[bytes | None]]:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.execute_command("HMGET", GENERATION, COUNTER, MARK, HISTORY)
                pipe.execute_command("MGET", *names)
                fields, values = await pipe.execute()
            return parse_moment(fields), values

        return await self._ask(fetch)

    async def moment(self) -> Moment:
        """Return the server's current moment."""
        return parse_moment(await self._ask_one("HMGET", GENERATION, COUNTER, MARK, HISTORY))

    async def generation(self) -> int:
        """Return the global generation; 0 before the first change."""
        return counted(await self._ask_one("HGET", GENERATION, COUNTER))

    async def history(self) -> str | None:
        """Return the random id of this server's history; None before the first change."""
        return (await self.moment()).history or None

    async def group(self) -> GroupSize | None:
        """Return how many servers replicate each other, as set or learned; None if unknown."""
        return parse_group(await self._ask_one("HGET", GENERATION, GROUP))

    async def count_servers(self) -> int:
        """Return how many servers hold these facts: listed, nodes of our slot, or else attached.

        Where there is a list, servers are counted by address. A replica that reconnects may be attached twice
        for a minute, and a group that was counted too large once stays so: no revocation would be sure again.
        """
        if isinstance(self._client, RedisCluster):
            await self.look(Moment())  # its list is made at the first command
            nodes = self._client.nodes_manager.slots_cache.get(self._client.keyslot(GENERATION), [])
            return max(1, len({node.name for node in nodes}))
        return len(await self._place.servers()) or 1 + (await self.look(Moment())).attached

    async def verify_history(self) -> None:
        """Raise `UnknownHistory` unless the server has the moment noted by this node in its past."""
        await self._verified(lambda note: ("EVAL", VERIFY, 2, *check_keys(note), *check_arguments(note)))

    async def members(self, name: bytes) -> list[bytes]:
        """Return the members of a set, unordered."""
        return list(await self._ask_one("SMEMBERS", name))

    async def hash_field(self, name: bytes, key: bytes) -> bytes | None:
        """Return one field of a hash."""
        value: bytes | None = await self._ask_one("HGET", name, key)
        return value

    async def hash_fields(self, name: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return several fields of a hash, in order."""
        return list(await self._ask_one("HMGET", name, *keys)) if keys else []

    async def hash_entries(self, name: bytes) -> dict[bytes, bytes]:
        """Return all fields of a hash that is known to be small."""
        found = await self._ask_one("HGETALL", name)
        if isinstance(found, dict):
            return {bytes(field): bytes(value) for field, value in found.items()}
        return {bytes(field): bytes(value) for field, value in zip(found[::2], found[1::2], strict=True)}

    async def put_hash(self, name: bytes, values: dict[bytes, bytes]) -> None:
        """Write hash fields without a transaction: for information such as "last used", never for facts.

        An empty value removes its field.
        """
        if values:
            flat = [part for entry in values.items() for part in entry]
            await self._verified(
                lambda note: ("EVAL", PUT_HASH, 3, *check_keys(note), name, *check_arguments(note), *flat)
            )

    async def put_for(self, values: dict[bytes, bytes], seconds: float) -> None:
        """Write values that expire, in one round trip; never facts."""
        if values:
            more = b"%d" % (seconds * 1000), *values.values()
            await self._verified(
                lambda note: (
                    *("EVAL", PUT_FOR, 2 + len(values), *check_keys(note), *values),
                    *(*check_arguments(note), *more),
                )
            )

    async def transact(self, plan: Callable[[FactSnapshot, Batch], Awaitable[_T]]) -> tuple[_T, Moment]:
        """Run `plan` and commit what it put into the batch; return its result and the moment after it.

        An empty batch commits nothing and returns the current moment. The plan may run several times; what it
        raises is raised here, and nothing is committed.
        """
        return await self._undisturbed(self._transact(plan))

    async def look(self, about: Moment, *, hold_seconds: float | None = None, prompts: bool = False) -> Fleet:
        """Read register and stamp, and whether the commit of that moment is in this server's past.

        With `hold_seconds` it also makes a write and waits until all replicas of the group have it, which
        shows that they have everything that was committed before. With `prompts` it only makes the write, if
        there are replicas: acknowledgements that workers wait for arrive sooner then (`redis_fleet.PROMPT`).
        """
        return await self._ask(lambda: self._observe(about, hold_seconds, prompts=prompts))

    async def hold_by_all(self, about: Moment, *, seconds: float = HOLD_SECONDS) -> None:
        """Raise `NotHeld` unless every server of the group has this commit within the time."""
        if self._group == 1:
            found = await self.look(about)
            if found.is_whole:
                return
        found = await self.look(about, hold_seconds=seconds)
        if not found.is_whole:
            raise NotHeld(
                "redis",
                f"generation {about.generation} is held by {found.held if found.is_ours else 0} of "
                f"{found.servers} servers: it would be lost if another one took over now",
            )

    async def keep(self, first: Fleet, last: Fleet, seconds: float, *, settles: bool) -> None:
        """Store what two observations, `seconds` apart, have shown of a server that is still the same.

        `settles`: its stamp was unchanged for longer than a lease, so all leases that count are in its
        register.
        """
        entries = seen_silent(first, last, seconds)
        if settles or entries:
            await self._verified(
                lambda note: keep_command(note, last.stamp, settles=settles, entries=entries),
                is_strict=False,
            )

    async def leave(self, worker: str) -> None:
        """Remove a worker that has ended from the register."""
        await self._verified(
            lambda note: (
                *("EVAL", LEAVE, 3, *check_keys(note), WORKERS),
                *(*check_arguments(note), worker.encode()),
            ),
            is_strict=False,
        )

    async def hold(self, lock: bytes, holder: str, *, seconds: float) -> bool:
        """Take or extend a lock that expires; return whether we hold it now."""
        more = holder.encode(), b"%d" % (seconds * 1000)
        return bool(
            await self._verified(
                lambda note: ("EVAL", HOLD, 3, *check_keys(note), lock, *check_arguments(note), *more)
            )
        )

    async def release(self, lock: bytes, holder: str) -> None:
        """Release a lock before it expires, if we hold it."""
        await self._verified(
            lambda note: (
                *("EVAL", LET_GO, 3, *check_keys(note), lock),
                *(*check_arguments(note), holder.encode()),
            ),
            is_strict=False,
        )

    async def check_server(self) -> ServerReport:
        """Report what kind of server this is and whether it is durable, for start-up and `doctor`."""
        return await self._ask(lambda: load_server_report(self._client, self.display))

    async def missing_rights(self) -> tuple[str, ...]:
        """Return the rights that our user lacks, as `ACL SETUSER` takes them, for start-up."""
        return await self._ask(lambda: find_missing_rights(self._client))

    async def close(self) -> None:
        """Wait for the operations under way, then close the connections."""
        while self._running:
            await asyncio.wait(tuple(self._running))
        with translated(self.display):
            await self._client.aclose()

    async def _observe(self, about: Moment, hold_seconds: float | None, *, prompts: bool) -> Fleet:
        note = self._note()
        if hold_seconds is None or self._group in {None, 1}:
            is_prompt = prompts and self._group not in {None, 1}
            command = look_command(note, about, LookWrite.PROMPT if is_prompt else LookWrite.NOTHING)
            found = parse_look(await self._client.execute_command(*command))
            self._group = found.servers
            if hold_seconds is None or found.servers == 1:
                return found
        # If the group grew since, too few servers are waited for here; the caller compares the counts.
        waiting = "WAIT", (self._group or 1) - 1, max(1, int(hold_seconds * 1000))
        held = self._in_order(look_command(note, about, LookWrite.TOUCH), waiting)
        observed, acknowledged = await self._prompting(held, note)
        found = parse_look(observed, held=1 + int(acknowledged))
        self._group = found.servers
        return found

    async def _prompting(self, held: Coroutine[Any, Any, _T], note: Moment | None) -> _T:
        """Await a `WAIT`; while it takes longer than it should, prompt the replicas by another connection."""
        task, prompt, pause = asyncio.create_task(held), None, FIRST_PROMPT_SECONDS
        while not (await asyncio.wait({task}, timeout=pause))[0]:
            if prompt is None or prompt.done():
                prompt = asyncio.create_task(self._ask_one(*prompt_command(note)))
                self._running.add(prompt)
                prompt.add_done_callback(self._end)  # nothing depends on its result
            pause = min(2 * pause, LONGEST_PROMPT_SECONDS)
        return task.result()

    async def _in_order(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Run commands on one connection, in order: `WAIT` counts only for writes of its own connection."""
        if not isinstance(self._client, RedisCluster):
            async with self._client.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                return list(await pipe.execute())
        await self._client.initialize()
        node = self._client.get_node_from_key(GENERATION.decode())
        if node is None:
            raise Unavailable("redis", f"no node of {self.display} holds our slot")
        asked = [PipelineCommand(number, *command) for number, command in enumerate(commands)]
        await node.execute_pipeline(asked)
        for one in asked:
            if isinstance(one.result, Exception):
                raise one.result
        return [one.result for one in asked]

    def _note(self) -> Moment | None:
        return None if self._history is None else self._history.known()

    async def _verified(
        self, command: Callable[[Moment | None], tuple[Any, ...]], *, is_strict: bool = True
    ) -> Any:
        """Run a script that begins with `CHECK`; if the history is unknown, reread the note and retry.

        An operator, or another process of this node, may have accepted the server's history meanwhile.
        """
        reply = await self._ask_one(*command(self._note()))
        if self._history is None or not _is_refused(reply, is_strict=is_strict):
            return reply
        reply = await self._ask_one(*command(self._history.reload()))
        if is_strict and _is_refused(reply, is_strict=is_strict):
            raise UnknownHistory(self.display)
        return reply

    async def _ask_one(self, *command: Any) -> Any:
        return await self._ask(lambda: self._client.execute_command(*command))

    async def _ask(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        """Run a read, and once more if the connection broke: the server may have been restarted."""

        async def twice() -> _T:
            try:
                return await operation()
            except RedisConnectionError as error:
                if not may_be_repeated(error):
                    raise
                return await operation()

        return await self._undisturbed(self._in_slot(twice))

    async def _undisturbed(self, operation: Coroutine[Any, Any, _T]) -> _T:
        """Await an operation, shielded from the caller's cancellation."""
        task = asyncio.create_task(operation)
        self._running.add(task)
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # retrieve it, so that asyncio does not warn when the caller was cancelled

    async def _in_slot(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        with translated(self.display):
            try:
                async with asyncio.timeout(self._limits.pool_wait_seconds):
                    await self._slots.acquire()
            except TimeoutError as error:
                raise Unavailable("redis", f"all connections to {self.display} are busy") from error
            try:
                await self._follow_cluster()
                return await operation()
            except (RedisConnectionError, ReadOnlyError) as error:
                if isinstance(root_of(error), ReadOnlyError):  # a failover: it is no longer the primary
                    self._place.forget()
                    self._place.move()
                raise
            finally:
                self._slots.release()

    async def _follow_cluster(self) -> None:
        """Make the cluster client look up the node of our slot again after the place has changed."""
        if isinstance(self._client, RedisCluster) and self._number != self._place.number:
            self._number = self._place.number
            await self._client.aclose()  # it reconnects and asks the nodes at its next command

    async def _transact(self, plan: Callable[[FactSnapshot, Batch], Awaitable[_T]]) -> tuple[_T, Moment]:
        pause = _SHORTEST_PAUSE_SECONDS
        try:
            async with asyncio.timeout(self._limits.transaction_seconds):
                await self._writing.acquire()
        except TimeoutError as error:
            raise Unavailable("redis", "other changes of this process take too long") from error
        try:
            deadline = asyncio.get_running_loop().time() + self._limits.transaction_seconds
            while asyncio.get_running_loop().time() < deadline:
                done = await self._in_slot(lambda: self._attempt(plan))
                if done is not None:
                    return done
                # Jitter separates processes that conflicted, so that they do not conflict again.
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 -- nothing secret in it
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        finally:
            self._writing.release()
        raise Unavailable("redis", "the facts kept changing while a change was made; nothing was changed")

    async def _attempt(
        self, plan: Callable[[FactSnapshot, Batch], Awaitable[_T]]
    ) -> tuple[_T, Moment] | None:
        try:
            return await attempt(self._client, self.display, plan, self._note())
        except UnknownHistory:
            if self._history is None:
                raise
        return await attempt(self._client, self.display, plan, self._history.reload())


def _is_refused(reply: Any, *, is_strict: bool) -> bool:
    """Whether a script found another history: -1; 0 unless `is_strict`; a list that does not begin with 1."""
    if isinstance(reply, list):
        return bool(reply[0] != 1)
    return reply == -1 or (not is_strict and reply == 0)
