"""The fact store over Redis or Valkey: reads with the generation they belong to, and transactions.

Reading gives the global generation with the values, so that an answer can later be checked with one
look. A transaction (`redis_transaction.py`) runs its plan again when somebody else committed
meanwhile; those of one process wait for each other, so only processes race.

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
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.adapters.redis_errors import may_be_repeated, translated
from gateway.adapters.redis_fleet import HOLD, LET_GO, Fleet, drop_workers, load_fleet
from gateway.adapters.redis_rights import find_missing_rights
from gateway.adapters.redis_server import ServerReport, load_server_report
from gateway.adapters.redis_transaction import COUNTER, GENERATION, HISTORY, attempt, counted
from gateway.adapters.redis_url import RedisLimits, make_client, parse_redis_url, sentinels_of
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from redis.asyncio import Redis, RedisCluster

    from gateway.model.stores import Batch, FactSnapshot

_T = TypeVar("_T")

_SHORTEST_PAUSE_SECONDS = 0.002  # about one transaction; doubled at each lost race
_LONGEST_PAUSE_SECONDS = 0.1

PUT_FOR = """
for number, name in ipairs(KEYS) do
    redis.call('SET', name, ARGV[number + 1], 'PX', ARGV[1])
end
"""


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
                pipe.execute_command("HGET", GENERATION, COUNTER)
                pipe.execute_command("MGET", *names)
                counter, values = await pipe.execute()
            return counted(counter), values

        return await self._ask(look)

    async def generation(self) -> int:
        """The global generation; 0 before the first change."""
        return counted(await self._ask_one("HGET", GENERATION, COUNTER))

    async def history(self) -> str | None:
        """The random id of this server's history; None before the first change."""
        raw = await self._ask_one("HGET", GENERATION, HISTORY)
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

    async def put_for(self, values: dict[bytes, bytes], seconds: float) -> None:
        """Write values that go away by themselves, in one round trip; never facts."""
        if values:
            await self._ask_one("EVAL", PUT_FOR, len(values), *values, int(seconds * 1000), *values.values())

    async def transact(self, plan: Callable[[FactSnapshot, Batch], Awaitable[None]]) -> int:
        """Run `plan` and commit what it put into the batch; returns the new global generation.

        An empty batch commits nothing and returns the generation as it is. The plan may run several
        times; what it raises is raised here, and nothing is committed.
        """
        return await self._undisturbed(self._transact(plan))

    async def fleet(self) -> Fleet:
        """The register of workers."""
        return await self._ask(lambda: load_fleet(self._client))

    async def drop_workers(self, workers: list[str]) -> None:
        """Take workers off the register."""
        await self._ask(lambda: drop_workers(self._client, workers))

    async def hold(self, lock: bytes, holder: str, *, seconds: float) -> bool:
        """Take or keep a lock that ends by itself; whether it is ours now."""
        milliseconds = b"%d" % (seconds * 1000)
        return bool(await self._ask_one("EVAL", HOLD, 1, lock, holder.encode(), milliseconds))

    async def let_go(self, lock: bytes, holder: str) -> None:
        """Let go of a lock before it ends, if it is ours."""
        await self._ask_one("EVAL", LET_GO, 1, lock, holder.encode())

    async def check_server(self) -> ServerReport:
        """What kind of server this is and whether it keeps what it is told; for start-up and `doctor`."""
        return await self._ask(lambda: load_server_report(self._client, self.display))

    async def missing_rights(self) -> tuple[str, ...]:
        """What our user lacks of what a worker does, as `ACL SETUSER` takes it; for the start."""
        return await self._ask(lambda: find_missing_rights(self._client))

    async def close(self) -> None:
        """Wait for what is still under way, then let go of the connections."""
        while self._running:
            await asyncio.wait(tuple(self._running))
        with translated(self.display):
            await self._client.aclose()
            for sentinel in sentinels_of(self._client):
                await sentinel.aclose()

    async def _ask_one(self, *command: Any) -> Any:
        return await self._ask(lambda: self._client.execute_command(*command))

    async def _ask(self, look: Callable[[], Awaitable[_T]]) -> _T:
        """Read something, and once more if the connection broke: a server may have been restarted."""

        async def twice() -> _T:
            try:
                return await look()
            except RedisConnectionError as error:
                if not may_be_repeated(error):
                    raise
                return await look()

        return await self._undisturbed(self._in_slot(twice))

    async def _undisturbed(self, operation: Coroutine[Any, Any, _T]) -> _T:
        """Wait for an operation that no cancellation of ours reaches."""
        task = asyncio.create_task(operation)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _in_slot(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        with translated(self.display):
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
                generation = await self._in_slot(lambda: attempt(self._client, self.display, plan))
                if generation is not None:
                    return generation
                # Jitter spreads those who lost the same race, so that they do not lose the next one too.
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 -- nothing secret in it
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        finally:
            self._writing.release()
        raise Unavailable("redis", "the facts kept changing while a change was made; nothing was changed")
