"""The fact store over Redis or Valkey: reads with the generation they belong to, and transactions.

The generation is a counter that every committed transaction raises by one, in the same transaction,
beside a random history id made on first use: a server that was restored or replaced can be told
from one that went on. A transaction watches the generation, lets the plan look at a snapshot, and
commits all it asked for or nothing; when somebody else committed meanwhile, the plan runs again.

**Cancellation.** A request can be cancelled wherever it waits, and a connection that goes back to
the pool with a reply still under way would hand one caller's facts to the next. redis-py closes a
connection that is cancelled in mid-command, but a cancellation between two awaits of its own
book-keeping can still lose a connection from the pool. So no cancellation ever reaches it: every
operation runs in a task of its own, which its caller only waits for. A cancelled caller leaves at
once; the operation goes on to its end, bounded by the timeouts, and lets go of its connection in
order. A transaction whose caller left may therefore still be committed, as it may whenever a
connection breaks.

Every error of redis-py, of the system and of time is `Unavailable` with the server's place in it.
Non-goals: what the records mean, caching, and following changes.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    WatchError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.adapters.redis_server import ServerReport, load_server_report
from gateway.adapters.redis_url import RedisLimits, make_client, parse_redis_url
from gateway.model.errors import Unavailable
from gateway.model.ports import Batch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence

    from redis.asyncio import Redis, RedisCluster

    from gateway.model.ports import FactSnapshot

_T = TypeVar("_T")

GENERATION = b"{cachegate}:generation"
"""A hash of `counter` and `history`. Outside of the facts' prefix: it moves with every one of them."""

_COUNTER = b"counter"
_HISTORY = b"history"
_HISTORY_BYTES = 16  # 128 random bits: no two histories share one
_SHORTEST_PAUSE_SECONDS = 0.002  # about one transaction; doubled at each lost race
_LONGEST_PAUSE_SECONDS = 0.1

_BROKEN = (RedisConnectionError, RedisTimeoutError, OSError)

# Most specific first: redis-py derives some answers of the server from its class of broken connections.
_WHY: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (AuthenticationError, AuthorizationError, NoPermissionError),
        "refuses our user or password, or its right to a command",
    ),
    ((BusyLoadingError,), "is still loading its data"),
    ((OutOfMemoryError,), "is out of memory: raise maxmemory"),
    ((ReadOnlyError,), "is a read-only replica: name the primary, or use the sentinel form"),
    ((RedisTimeoutError, TimeoutError), "does not answer in time"),
    ((RedisConnectionError, OSError), "cannot be reached"),
)


class RedisStore:
    """`FactStore` of the ports. Belongs to one event loop; `close` it there."""

    def __init__(self, url: str, *, limits: RedisLimits | None = None) -> None:
        self._limits = limits or RedisLimits()
        self._address = parse_redis_url(url)
        self._client: Redis | RedisCluster = make_client(self._address, self._limits)
        self._slots = asyncio.Semaphore(self._limits.pool_connections)
        self._writing = asyncio.Lock()  # our own transactions need not race each other
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def display(self) -> str:
        """Where the server is, without anything secret."""
        return self._address.display

    async def read(self, names: Sequence[bytes]) -> tuple[int, list[bytes | None]]:
        """The global generation, read first, and the values of these names, in one round trip."""
        if not names:
            return await self.generation(), []

        async def look() -> tuple[int, list[bytes | None]]:
            async with self._client.pipeline(transaction=False) as pipe:
                # In this order: a change between the two makes the generation too old, never too new.
                pipe.execute_command("HGET", GENERATION, _COUNTER)
                pipe.execute_command("MGET", *names)
                counter, values = await pipe.execute()
            return self._counted(counter), values

        return await self._ask(look)

    async def generation(self) -> int:
        """The global generation; 0 before the first change."""
        return self._counted(await self._ask_one("HGET", GENERATION, _COUNTER))

    async def history(self) -> str | None:
        """The random id of this server's history; None before the first change."""
        raw = await self._ask_one("HGET", GENERATION, _HISTORY)
        return None if raw is None else bytes(raw).decode("ascii", "replace")

    async def members(self, name: bytes) -> list[bytes]:
        """The members of a set, unordered."""
        return list(await self._ask_one("SMEMBERS", name))

    async def hash_field(self, name: bytes, key: bytes) -> bytes | None:
        """One field of a hash."""
        value: bytes | None = await self._ask_one("HGET", name, key)
        return value

    async def hash_fields(self, name: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Several fields of a hash, in order."""
        return list(await self._ask_one("HMGET", name, *keys)) if keys else []

    async def put_hash(self, name: bytes, values: dict[bytes, bytes]) -> None:
        """Write hash fields outside of any transaction: for hints such as "last used", never for facts."""
        if values:
            flat = [part for entry in values.items() for part in entry]
            await self._undisturbed(self._in_slot(lambda: self._client.execute_command("HSET", name, *flat)))

    async def transact(self, plan: Callable[[FactSnapshot, Batch], Awaitable[None]]) -> int:
        """Run `plan` and commit what it put into the batch; returns the new global generation.

        An empty batch commits nothing and returns the generation as it is. The plan may run several
        times; what it raises is raised here, and nothing is committed.
        """
        return await self._undisturbed(self._transact(plan))

    async def check_server(self) -> ServerReport:
        """What kind of server this is and whether it keeps what it is told; for start-up and `doctor`."""
        return await self._ask(lambda: load_server_report(self._client, self.display))

    async def close(self) -> None:
        """Wait for what is still under way, then let go of the connections."""
        while self._running:
            await asyncio.wait(tuple(self._running))
        with self._translated():
            await self._client.aclose()

    async def _ask_one(self, *command: Any) -> Any:
        return await self._ask(lambda: self._client.execute_command(*command))

    async def _ask(self, look: Callable[[], Awaitable[_T]]) -> _T:
        """Read something, and once more if the connection broke: a server may have been restarted."""

        async def twice() -> _T:
            try:
                return await look()
            except RedisConnectionError as error:
                if isinstance(_root(error), (AuthenticationError, AuthorizationError, BusyLoadingError)):
                    raise  # an answer, though redis-py counts it among the broken connections
                return await look()

        return await self._undisturbed(self._in_slot(twice))

    async def _undisturbed(self, operation: Coroutine[Any, Any, _T]) -> _T:
        """Wait for an operation that no cancellation of ours reaches."""
        task = asyncio.create_task(operation)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _in_slot(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        with self._translated():
            try:
                async with asyncio.timeout(self._limits.pool_wait_seconds):
                    await self._slots.acquire()
            except TimeoutError as error:
                raise Unavailable("redis", f"all connections to {self.display} are busy") from error
            try:
                return await operation()
            finally:
                self._slots.release()

    async def _transact(self, plan: Callable[[FactSnapshot, Batch], Awaitable[None]]) -> int:
        pause = _SHORTEST_PAUSE_SECONDS
        try:
            async with asyncio.timeout(self._limits.transaction_seconds):
                await self._writing.acquire()
        except TimeoutError as error:
            raise Unavailable("redis", "other changes of this process take too long") from error
        try:
            deadline = asyncio.get_running_loop().time() + self._limits.transaction_seconds
            while asyncio.get_running_loop().time() < deadline:
                generation = await self._in_slot(lambda: self._attempt(plan))
                if generation is not None:
                    return generation
                # Jitter spreads those who lost the same race, so that they do not lose the next one too.
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 -- nothing secret in it
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        finally:
            self._writing.release()
        raise Unavailable("redis", "the facts kept changing while a change was made; nothing was changed")

    async def _attempt(self, plan: Callable[[FactSnapshot, Batch], Awaitable[None]]) -> int | None:
        """One attempt at a transaction; None when somebody else committed first."""
        async with self._client.pipeline(transaction=True) as pipe:
            looking: Any = pipe  # while it watches, a pipeline answers at once; its types do not say so
            try:
                await pipe.watch(GENERATION)
                counter, history = await looking.execute_command("HMGET", GENERATION, _COUNTER, _HISTORY)
                generation = self._counted(counter)
                batch = Batch()
                await plan(_Snapshot(pipe, generation + 1), batch)
            except WatchError:
                return None  # the connection broke before anything was committed: look again
            commands = _commands(batch)
            if not commands:
                return generation
            looking.multi()
            pipe.execute_command("HINCRBY", GENERATION, _COUNTER, 1)
            if history is None:
                pipe.execute_command("HSET", GENERATION, _HISTORY, secrets.token_hex(_HISTORY_BYTES))
            for command in commands:
                pipe.execute_command(*command)
            return generation + 1 if await self._is_committed(pipe) else None

    async def _is_committed(self, pipe: Any) -> bool:
        """Commit; False when somebody else came first. A connection that breaks now leaves it open."""
        try:
            await pipe.execute()
        except WatchError as error:
            # redis-py also says so when the connection broke while it watched.
            if not isinstance(error.__context__, _BROKEN):
                return False
            cause: Exception = error
        except _BROKEN as error:
            cause = error
        else:
            return True
        raise Unavailable(
            "redis",
            f"the connection to {self.display} broke during a commit, so it is not known whether the "
            "change was made: look, then repeat the command",
        ) from cause

    def _counted(self, raw: bytes | None) -> int:
        try:
            return 0 if raw is None else int(raw)
        except ValueError as error:
            raise Unavailable("redis", "the generation counter is not a number") from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, RedisClusterException, OSError) as error:
            raise Unavailable("redis", self._why(error)) from error

    def _why(self, error: Exception) -> str:
        # Never the error's own text: it quotes commands, and a command may quote what an operator typed.
        root = _root(error)
        for kinds, why in _WHY:
            if isinstance(root, kinds):
                return f"{self.display} {why}"
        return f"{self.display} gave no usable answer ({type(root).__name__})"


class _Snapshot:
    """`FactSnapshot` over a connection that watches the generation."""

    def __init__(self, pipe: Any, next_generation: int) -> None:
        self._pipe = pipe
        self._next_generation = next_generation

    @property
    def next_generation(self) -> int:
        """The generation that this transaction's records will carry."""
        return self._next_generation

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """The values of these names, in order."""
        return list(await self._pipe.execute_command("MGET", *names)) if names else []

    async def members(self, name: bytes) -> list[bytes]:
        """The members of a set, unordered."""
        return list(await self._pipe.execute_command("SMEMBERS", name))

    async def hash_field(self, name: bytes, key: bytes) -> bytes | None:
        """One field of a hash."""
        value: bytes | None = await self._pipe.execute_command("HGET", name, key)
        return value


def _root(error: Exception) -> BaseException:
    """What redis-py wrapped: a refusal while it connects comes as one more broken connection."""
    wrapped = error.__cause__
    return wrapped if isinstance(error, RedisConnectionError) and isinstance(wrapped, RedisError) else error


def _commands(batch: Batch) -> list[tuple[bytes | str, ...]]:
    commands: list[tuple[bytes | str, ...]] = []
    for name, value in batch.facts.items():
        commands.append(("DEL", name) if value is None else ("SET", name, value))
    commands += [("SADD", name, member) for name, member in batch.set_add]
    commands += [("SREM", name, member) for name, member in batch.set_remove]
    commands += [("HSET", name, key, value) for name, key, value in batch.hash_put]
    commands += [("HDEL", name, key) for name, key in batch.hash_drop]
    return commands
