"""The register of workers, and what is known of the servers that hold it: the scripts of lease and barrier.

One hash, a field a worker: `<acknowledged generation>:<number of the renewal>`. Workers write it by their
renewals, the barrier reads it. No time of a server is in it: a server's clock can be set, and two servers
need not agree. That an entry has stayed the same is seen by somebody who looks twice, on that one's own
clock; what was seen is added to the entry: `...:<milliseconds>:<stamp>`, and the next renewal overwrites it.

The **stamp** of a server is what changes whenever the server may have been another one: its replication id,
its run, and how often a replica was attached to it. `settled` is the last stamp that somebody saw unchanged
for longer than a lease. While a server has that stamp, all leases that count are in its register.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Any

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
LONGEST_LEASE_SECONDS = 60.0  # that the setting allows: taken for one that cannot be read
FORGET_SECONDS = 7200.0  # of silence: longer than any degraded time; the entry is only in the way
WORKERS = b"{cachegate}:workers"
SETTLED = b"{cachegate}:settled"
TOUCH = b"{cachegate}:touch"
"""Written by whoever waits for the replicas: `WAIT` counts for a write of the same connection only."""

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
"""Registers before it answers: whoever commits later and looks for workers finds this one, and its lease."""

LEAVE = CHECK + b"if known == 1 then redis.call('HDEL', KEYS[3], ARGV[5]) end return known"

LOOK = (
    CHECK
    + STAMP
    + b"""
local ours = 0
if ARGV[5] == '' or redis.call('GETRANGE', KEYS[6], ARGV[6], ARGV[6] + 15) == ARGV[5] then ours = 1 end
if known == 1 and ours == 1 and ARGV[7] == '1' then redis.call('INCR', KEYS[5]) end
return {known, g[1], g[2], g[3], g[4], ours, stamp, attached,
    redis.call('GET', KEYS[4]) or '', redis.call('HGETALL', KEYS[3]),
    redis.call('HGET', KEYS[1], 'lease') or '0'}
"""
)

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
"""Writes down what somebody saw, if the server is still the one that it was seen on."""

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
"""Takes a lock that is free or ours, and says whether it is ours now.

It ends by the server's clock, which can be set: it spares work, and nothing is safe because of it.
"""

LET_GO = (
    CHECK
    + b"""
if known == 1 and redis.call('GET', KEYS[3]) == ARGV[5] then redis.call('DEL', KEYS[3]) end
return known
"""
)
"""Lets go of a lock, if it is still ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One worker, as it is registered. `entry` is its whole value, to replace it only if it stayed so."""

    worker: str
    applied: int  # the generation that it acknowledged
    silent_seconds: float = 0.0  # for at least so long it has not renewed
    silent_under: str = ""  # the stamp under which that was seen
    entry: bytes = b""

    @property
    def renewal(self) -> bytes:
        """What the worker itself wrote of it: another one after each renewal."""
        return b":".join(self.entry.split(b":", 2)[:2])

    def silence(self, stamp: str) -> float:
        """For how long it was seen silent under this stamp."""
        return self.silent_seconds if self.silent_under == stamp else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What one look at a server found: its moment, its stamp, and its register."""

    is_known: bool = True  # whether this node's note is in the server's past
    is_ours: bool = True  # whether the change that was asked about is
    moment: Moment = field(default_factory=Moment)
    group: GroupSize | None = None
    stamp: str = ""
    settled: str = ""
    lease_seconds: float = 0.0  # the longest of any worker
    attached: int = 0  # replicas
    held: int = 1  # servers that have the write of this look, if it made one
    workers: tuple[Registered, ...] = ()

    @property
    def servers(self) -> int:
        """How many must hold a change: the group, or all that replicate, since `WAIT` counts any of them."""
        return max(1 if self.group is None else self.group.servers, self.attached + 1)

    @property
    def is_whole(self) -> bool:
        """Whether every server of the group has the change that was asked about."""
        return self.is_known and self.is_ours and self.held >= self.servers


def look_command(note: Moment | None, about: Moment, *, touches: bool) -> tuple[Any, ...]:
    """The command of a look at a change; with a write of its own to be waited for, if it touches."""
    keys = (*check_keys(note), WORKERS, SETTLED, TOUCH, block_of(about.generation))
    more = about.mark.encode(), b"%d" % offset_of(about.generation), b"1" if touches else b"0"
    return "EVAL", LOOK, len(keys), *keys, *check_arguments(note), *more


def parse_look(reply: Sequence[Any], *, held: int = 1) -> Fleet:
    """What a look found."""
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


def keep_command(
    note: Moment | None, stamp: str, *, settles: bool, entries: Sequence[tuple[str, bytes, bytes]]
) -> tuple[Any, ...]:
    """The command that writes down what was seen. Entries: worker, value before, value after."""
    keys = (*check_keys(note), WORKERS, SETTLED)
    flat = [part for worker, before, after in entries for part in (worker.encode(), before, after)]
    more = stamp.encode(), b"1" if settles else b"0"
    return "EVAL", KEEP, len(keys), *keys, *check_arguments(note), *more, *flat


def renew_command(
    note: Moment | None, worker: bytes, acknowledged: int, number: int, *, lease_seconds: float
) -> tuple[bytes, ...]:
    """The command of a renewal, as bytes: the feed writes it itself."""
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
    """The entries of workers that did not renew between two looks, with how long that is by now.

    One that has been silent for longer than any degraded time is taken off.
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
        return None  # nobody's entry; it holds no lease that a renewal of ours gave
    milliseconds, _, stamp = silence.partition(b":")
    return Registered(
        worker=raw_name.decode("ascii", "replace"),
        applied=int(acknowledged),
        silent_seconds=int(milliseconds) / 1000 if _NUMBER.fullmatch(milliseconds) else 0.0,
        silent_under=stamp.decode("ascii", "replace"),
        entry=raw_value,
    )
