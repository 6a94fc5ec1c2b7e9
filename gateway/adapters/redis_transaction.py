"""Optimistic transactions over Redis: watch the generation, run a plan, commit all of its batch or nothing.

The generation is a hash of a counter, which every transaction raises by one as part of its commit, a random
mark of that commit, and a random history id made on first use, which tells a restored or replaced server from
one that continued (`redis_marks.py`). Every commit changes the counter, so watching it is watching all facts.
A plan runs only if this node's history is the server's.

If the reply to a commit is lost, the commit may have happened. It is not repeated but reported as unknown: a
second run of the plan would find its own changes and attribute them to another process.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import WatchError

from gateway.adapters.redis_errors import BROKEN
from gateway.adapters.redis_marks import (
    COUNTER,
    GENERATION,
    GROUP,
    HISTORY,
    MARK,
    MARKS_PER_BLOCK,
    MAX_BLOCKS,
    VERIFY,
    block_of,
    check_arguments,
    check_keys,
    encode_group,
    new_mark,
    offset_of,
    parse_moment,
)
from gateway.model.errors import UnknownHistory, UnknownOutcome
from gateway.model.stores import Batch, Moment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis.asyncio import Redis, RedisCluster

    from gateway.model.stores import FactSnapshot, GroupSize

_T = TypeVar("_T")

STEPS = b"{cachegate}:f:step:"
"""The prefix of a record that each transaction writes, named by its generation and mark.

It is below the prefix that workers track: the push that reports the changed facts then also reports the
generation up to which changes were received.
"""

STEP_SECONDS = 60  # the record only has to be pushed; its expiry is pushed too, and ignored

_HISTORY_BYTES = 16  # 128 random bits: unique


async def attempt(
    client: Redis | RedisCluster,
    display: str,
    plan: Callable[[FactSnapshot, Batch], Awaitable[_T]],
    note: Moment | None,
) -> tuple[_T, Moment] | None:
    """Run one attempt at a transaction; return None if another process committed first.

    `note` is the moment that this node noted. Raises `UnknownHistory` if it is not in the server's past.
    """
    async with client.pipeline(transaction=True) as pipe:
        looking: Any = pipe  # a watching pipeline executes at once; its types do not say so
        try:
            await pipe.watch(GENERATION)
            keys = check_keys(note)
            found = await looking.execute_command("EVAL", VERIFY, len(keys), *keys, *check_arguments(note))
            is_known, counter, mark, history, _ = found
            if is_known != 1:
                raise UnknownHistory(display)
            before = parse_moment((counter, mark, history))
            batch = Batch()
            result = await plan(_Snapshot(pipe, before.generation + 1), batch)
        except WatchError:
            return None  # the connection broke before anything was committed: retry
        commands = _commands(batch)
        if not commands and batch.group is None:
            return result, before
        after = Moment(
            history=before.history or secrets.token_hex(_HISTORY_BYTES),
            generation=before.generation + 1,
            mark=new_mark(),
        )
        looking.multi()
        for command in (*commands, *_step(before, after, batch.group)):
            pipe.execute_command(*command)
        return (result, after) if await _is_committed(pipe, display) else None


def _step(before: Moment, after: Moment, group: GroupSize | None) -> list[tuple[Any, ...]]:
    """Make the commands that raise the generation; the record that is pushed comes last."""
    mark, generation = after.mark.encode(), after.generation
    fields: list[Any] = [MARK, mark]
    if not before.history:
        fields += [HISTORY, after.history]
    if group is not None:
        fields += [GROUP, encode_group(group)]
    commands: list[tuple[Any, ...]] = [
        ("HINCRBY", GENERATION, COUNTER, 1),
        ("HSET", GENERATION, *fields),
        ("SETRANGE", block_of(generation), offset_of(generation), mark),
        ("SET", STEPS + b"%d:%s" % (generation, mark), b"", "EX", STEP_SECONDS),
    ]
    oldest = generation - MAX_BLOCKS * MARKS_PER_BLOCK
    if oldest >= 0 and generation % MARKS_PER_BLOCK == 0:
        commands.insert(0, ("DEL", block_of(oldest)))
    return commands


async def _is_committed(pipe: Any, display: str) -> bool:
    """Commit; False if another process committed first. Raises `UnknownOutcome` if the connection breaks."""
    try:
        await pipe.execute()
    except WatchError as error:
        # redis-py raises it as well when the connection broke while it watched.
        if not isinstance(error.__context__, BROKEN):
            return False
        cause: Exception = error
    except BROKEN as error:
        cause = error
    else:
        return True
    raise UnknownOutcome(
        "redis",
        f"the connection to {display} broke during a commit, so it is not known whether the "
        "change was made: look, then repeat the command",
    ) from cause


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
        """Return the values of these names, in order."""
        return list(await self._pipe.execute_command("MGET", *names)) if names else []

    async def members(self, name: bytes) -> list[bytes]:
        """Return the members of a set, unordered."""
        return list(await self._pipe.execute_command("SMEMBERS", name))

    async def hash_field(self, name: bytes, key: bytes) -> bytes | None:
        """Return one field of a hash."""
        value: bytes | None = await self._pipe.execute_command("HGET", name, key)
        return value


def _commands(batch: Batch) -> list[tuple[bytes | str, ...]]:
    """Make one command for each name that is written, however many entries: a bulk load has thousands."""
    written = [part for name, value in batch.facts.items() if value is not None for part in (name, value)]
    deleted = [name for name, value in batch.facts.items() if value is None]
    commands: list[tuple[bytes | str, ...]] = []
    if written:
        commands.append(("MSET", *written))
    if deleted:
        commands.append(("DEL", *deleted))
    commands += [("PEXPIRE", name, b"%d" % max(1, seconds * 1000)) for name, seconds in batch.seconds.items()]
    commands += _by_name("SADD", batch.set_add)
    commands += _by_name("SREM", batch.set_remove)
    commands += _by_name("HSET", batch.hash_put)
    commands += _by_name("HDEL", batch.hash_drop)
    return commands


def _by_name(command: str, entries: Sequence[tuple[bytes, ...]]) -> list[tuple[bytes | str, ...]]:
    parts: dict[bytes, list[bytes]] = {}
    for name, *rest in entries:
        parts.setdefault(name, []).extend(rest)
    return [(command, name, *rest) for name, rest in parts.items()]
