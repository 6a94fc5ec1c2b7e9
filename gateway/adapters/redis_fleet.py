"""The Redis scripts for leases and the barrier: the register of workers, and the server's stamp.

The register is one hash with a field per worker: `<acknowledged generation>:<number of the renewal>`. Workers
write it with their renewals; the barrier reads it. It contains no time of a server: a server's clock can be
set, and two servers need not agree. An observer that reads an entry twice and finds it unchanged measures the
time between on its own clock and adds it to the entry: `...:<milliseconds>:<stamp>`. The next renewal
overwrites it.

The **stamp** of a server changes whenever the server may have been replaced: it is its replication id, its
run id, and how often a replica was attached to it. `settled` is the last stamp that an observer saw unchanged
for longer than a lease. While a server has that stamp, all leases that count are in its register.
"""

from __future__ import annotations

import re
from enum import StrEnum
from math import ceil
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gateway.adapters.redis_marks import (
    CHECK,
    block_of,
    check_arguments,
    check_keys,
    offset_of,
    parse_group,
    parse_moment,
)
from gateway.model.stores import Moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.stores import GroupSize

_NUMBER = re.compile(rb"[0-9]{1,18}")
LONGEST_LEASE_SECONDS = 60.0  # the longest that the setting allows; assumed where the field cannot be read
FORGET_SECONDS = 7200.0  # silence after which an entry is removed: longer than any degraded mode lasts
WORKERS = b"{cachegate}:workers"
SETTLED = b"{cachegate}:settled"
TOUCH = b"{cachegate}:touch"
"""Written before waiting for the replicas: `WAIT` counts only for a write of the same connection."""

STAMP = b"""
local info = redis.call('INFO', 'replication') .. redis.call('INFO', 'stats') .. redis.call('INFO', 'server')
local function field(name) return string.match(info, '\\n' .. name .. ':([^\\r\\n]*)') or '' end
local stamp = field('master_replid') .. ':' .. field('sync_full') .. ':' .. field('sync_partial_ok')
    .. ':' .. field('run_id')
local attached = tonumber(field('connected_slaves')) or 0
"""

RENEW = (
    CHECK
    + b"""
if known == 1 then
    redis.call('HSET', KEYS[3], ARGV[5], ARGV[6])
    if tonumber(ARGV[7]) > (tonumber(redis.call('HGET', KEYS[1], 'lease') or '0') or 0) then
        redis.call('HSET', KEYS[1], 'lease', ARGV[7])
    end
end
return {known, g[1], g[2], g[3], g[4]}
"""
)
"""Registers the worker and its lease before it answers, so that whoever commits later finds both."""

LEAVE = CHECK + b"if known == 1 then redis.call('HDEL', KEYS[3], ARGV[5]) end return known"

LOOK = (
    CHECK
    + STAMP
    + b"""
local ours = 0
if ARGV[5] == '' or redis.call('GETRANGE', KEYS[6], ARGV[6], ARGV[6] + 15) == ARGV[5] then ours = 1 end
if known == 1 and ours == 1 and ARGV[7] == 'touch' then redis.call('INCR', KEYS[5]) end
if known == 1 and ours == 1 and ARGV[7] == 'prompt' then redis.pcall('INCR', KEYS[5]) end
return {known, g[1], g[2], g[3], g[4], ours, stamp, attached,
    redis.call('GET', KEYS[4]) or '', redis.call('HGETALL', KEYS[3]),
    redis.call('HGET', KEYS[1], 'lease') or '0'}
"""
)

PROMPT = CHECK + b"if known == 1 then redis.call('INCR', KEYS[3]) end return known"
"""Makes the primary send its replicas something, which ends a delay of their acknowledgements by TCP.

A replica of Valkey 9.1 leaves Nagle's algorithm on for its connection to the primary (one of Redis turns
it off). So it holds an acknowledgement back while the one before it is unconfirmed, and a primary that has
nothing to send confirms only after 40 ms (delayed ACK). Whatever the primary sends carries the confirmation.
What `WAIT` counts is unchanged.
"""

KEEP = (
    CHECK
    + STAMP
    + b"""
if known == 0 or stamp ~= ARGV[5] then return 0 end
if ARGV[6] == '1' then redis.call('SET', KEYS[4], stamp) end
for i = 7, #ARGV, 3 do
    if redis.call('HGET', KEYS[3], ARGV[i]) == ARGV[i + 1] then
        if ARGV[i + 2] == '' then redis.call('HDEL', KEYS[3], ARGV[i])
        else redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 2]) end
    end
end
return 1
"""
)
"""Stores observations, if the server still has the stamp under which they were made."""

HOLD = (
    CHECK
    + b"""
if known == 0 then return -1 end
local holder = redis.call('GET', KEYS[3])
if holder and holder ~= ARGV[5] then return 0 end
redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6])
return 1
"""
)
"""Takes a lock that is free or ours, and returns whether we hold it now.

The lock expires by the server's clock, which can be set: it avoids duplicate work, and no guarantee depends
on it.
"""

LET_GO = (
    CHECK
    + b"""
if known == 1 and redis.call('GET', KEYS[3]) == ARGV[5] then redis.call('DEL', KEYS[3]) end
return known
"""
)
"""Releases a lock, if we hold it."""


class Registered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One entry of the register. `entry` is its raw value, so that it is replaced only if unchanged."""

    worker: str
    applied: int  # the generation that it acknowledged
    silent_seconds: float = 0.0  # it has not renewed for at least this long
    silent_under: str = ""  # the stamp under which that was observed
    entry: bytes = b""

    @property
    def renewal(self) -> bytes:
        """The part that the worker wrote; it differs after each renewal."""
        return b":".join(self.entry.split(b":", 2)[:2])

    def silence(self, stamp: str) -> float:
        """For how long it was seen silent under this stamp."""
        return self.silent_seconds if self.silent_under == stamp else 0.0


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """One observation of a server: its moment, stamp and register."""

    is_known: bool = True  # whether the moment that this node noted is in the server's past
    is_ours: bool = True  # whether the change that was asked about is in its past
    moment: Moment = msgspec.field(default_factory=Moment)
    group: GroupSize | None = None
    stamp: str = ""
    settled: str = ""
    lease_seconds: float = 0.0  # the longest of any worker
    attached: int = 0  # replicas
    held: int = 1  # servers that have this observation's own write, if it made one
    workers: tuple[Registered, ...] = ()

    @property
    def servers(self) -> int:
        """How many servers must hold a change: the group's, or all attached if more (`WAIT` counts any)."""
        return max(1 if self.group is None else self.group.servers, self.attached + 1)

    @property
    def is_whole(self) -> bool:
        """Whether every server of the group has the change that was asked about."""
        return self.is_known and self.is_ours and self.held >= self.servers


class LookWrite(StrEnum):
    """What an observation writes."""

    NOTHING = "nothing"
    TOUCH = "touch"  # to wait for; a server that takes no writes is a failure
    PROMPT = "prompt"  # as `PROMPT`; a server that takes no writes is observed all the same


def look_command(note: Moment | None, about: Moment, write: LookWrite = LookWrite.NOTHING) -> tuple[Any, ...]:
    """Make the command that observes a server with regard to a change."""
    keys = (*check_keys(note), WORKERS, SETTLED, TOUCH, block_of(about.generation))
    more = about.mark.encode(), b"%d" % offset_of(about.generation), write.encode()
    return "EVAL", LOOK, len(keys), *keys, *check_arguments(note), *more


def parse_look(reply: Sequence[Any], *, held: int = 1) -> Fleet:
    """Parse the reply to `look_command`."""
    known, counter, mark, history, group, ours, stamp, attached, settled, raw_workers, lease = reply
    pairs = raw_workers.items() if isinstance(raw_workers, dict) else _pairs(raw_workers)
    workers = (_parse(bytes(name), bytes(value)) for name, value in pairs)
    return Fleet(
        is_known=known == 1,
        is_ours=ours == 1,
        moment=parse_moment((counter, mark, history)),
        group=parse_group(group),
        stamp=bytes(stamp).decode("ascii", "replace"),
        settled=bytes(settled).decode("ascii", "replace"),
        lease_seconds=int(lease) / 1000 if _NUMBER.fullmatch(lease) else LONGEST_LEASE_SECONDS,
        attached=int(attached),
        held=held,
        workers=tuple(one for one in workers if one is not None),
    )


def prompt_command(note: Moment | None) -> tuple[Any, ...]:
    """Make the command that has the primary send its replicas something."""
    return "EVAL", PROMPT, 3, *check_keys(note), TOUCH, *check_arguments(note)


def keep_command(
    note: Moment | None, stamp: str, *, settles: bool, entries: Sequence[tuple[str, bytes, bytes]]
) -> tuple[Any, ...]:
    """Make the command that stores observations. Entries: worker, value before, value after."""
    keys = (*check_keys(note), WORKERS, SETTLED)
    flat = [part for worker, before, after in entries for part in (worker.encode(), before, after)]
    more = stamp.encode(), b"1" if settles else b"0"
    return "EVAL", KEEP, len(keys), *keys, *check_arguments(note), *more, *flat


def renew_command(
    note: Moment | None, worker: bytes, acknowledged: int, number: int, *, lease_seconds: float
) -> tuple[bytes, ...]:
    """Make the command of a renewal, as bytes for the feed's own connection."""
    keys = (*check_keys(note), WORKERS)
    entry, lease = b"%d:%d" % (acknowledged, number), b"%d" % ceil(lease_seconds * 1000)
    return b"EVAL", RENEW, b"3", *keys, *check_arguments(note), worker, entry, lease


def with_silence(first: Fleet, last: Fleet, seconds: float) -> Fleet:
    """The last of two looks at the same server, with how long each worker has been silent by then.

    That is the time between the looks on top of what the *first* found, or what the last found, where that
    is longer. What the last found is never added to: somebody else may have watched at the same time, and
    then the same second would count twice. Under another stamp it begins anew: the worker may have renewed
    elsewhere meanwhile.
    """
    before = {one.worker: one for one in first.workers}
    workers: list[Registered] = []
    for one in last.workers:
        former = before.get(one.worker)
        if first.stamp == last.stamp and former is not None and former.renewal == one.renewal:
            silent = max(seconds + former.silence(last.stamp), one.silence(last.stamp))
            one = replace(one, silent_seconds=silent, silent_under=last.stamp)  # noqa: PLW2901 -- the same one
        workers.append(one)
    return replace(last, workers=tuple(workers))


def seen_silent(first: Fleet, last: Fleet, seconds: float) -> list[tuple[str, bytes, bytes]]:
    """Return new entries for workers that did not renew between two observations, with the longer silence.

    A worker that is silent for longer than any degraded mode lasts gets an empty entry, which removes it.
    """
    entries: list[tuple[str, bytes, bytes]] = []
    for found, one in zip(last.workers, with_silence(first, last, seconds).workers, strict=True):
        if one is not found:
            entry = b"%s:%d:%s" % (one.renewal, one.silent_seconds * 1000, last.stamp.encode())
            entries.append((one.worker, one.entry, b"" if one.silent_seconds > FORGET_SECONDS else entry))
    return entries


def _pairs(flat: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _parse(raw_name: bytes, raw_value: bytes) -> Registered | None:
    acknowledged, _, rest = raw_value.partition(b":")
    number, _, silence = rest.partition(b":")
    if not (_NUMBER.fullmatch(acknowledged) and _NUMBER.fullmatch(number)):
        return None  # not a worker's entry: no renewal wrote it, so it holds no lease
    milliseconds, _, stamp = silence.partition(b":")
    return Registered(
        worker=raw_name.decode("ascii", "replace"),
        applied=int(acknowledged),
        silent_seconds=int(milliseconds) / 1000 if _NUMBER.fullmatch(milliseconds) else 0.0,
        silent_under=stamp.decode("ascii", "replace"),
        entry=raw_value,
    )
