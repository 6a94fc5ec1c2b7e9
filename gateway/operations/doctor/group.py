"""Doctor, the group: whether the assumptions of leases and revocations on replicated servers hold.

A revocation is sure once every server of the group has it, and a lease counts where a majority has it. So the
configured size has to match the servers that exist, each server has to keep what it acknowledges, and a
failover has to need a majority of the Sentinels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.adapters.redis_group import load_member, load_sentinels
from gateway.adapters.redis_url import RedisLimits, Topology, parse_redis_url
from gateway.model.groups import lease_quorum
from gateway.model.stores import Moment
from gateway.operations.doctor.findings import fail, ok, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.adapters.redis_fleet import Fleet
    from gateway.adapters.redis_group import MemberReport, SentinelReport
    from gateway.adapters.redis_store import RedisStore
    from gateway.model.clocks import MonotonicClock
    from gateway.operations.doctor.findings import Finding

LEAST_SENTINELS = 3  # of two, a majority is both
LONGEST_HOLD_SECONDS = 0.02  # beyond it a renewal does not wait for all servers
HOLD_SECONDS = 0.3
MAX_LAG_SECONDS = 3


async def check_group(store: RedisStore, clock: MonotonicClock) -> Finding:
    """How many servers hold the facts, and whether all of them take a write in time."""
    started = clock.monotonic()
    found = await store.look(Moment(), hold_seconds=HOLD_SECONDS)
    return judge_group(found, await store.count_servers(), clock.monotonic() - started)


def judge_group(found: Fleet, seen: int, seconds: float) -> Finding:
    """Whether the group has the expected size, and all servers take part."""
    name = "redis group"
    if found.group is None:
        return warning(name, "its size is not known yet", "any command that changes something learns it")
    size = found.group.servers
    how = "set" if found.group.is_set else "learned"
    text = f"{size} servers ({how}), {found.attached + 1} attached, {seen} seen; {found.held} took a write"
    if size > 1:
        text += f" in {seconds * 1000:.0f} ms"
    if seen > size:
        return fail(
            name,
            text,
            f"more are seen than the group has, and any of them may be promoted without a revocation: "
            f"`cachegate directory group {seen}`",
        )
    if found.held < size:
        return warning(
            name,
            text,
            f"revocations are held by {found.held} of {size} and never sure until all are back. For one that "
            f"is gone for good: SENTINEL RESET, then `cachegate directory group {max(seen, 1)}`",
        )
    if size > 1 and seconds > LONGEST_HOLD_SECONDS:
        return warning(
            name, text, "replicas are slow: a revocation waits for them; look at disks and network"
        )
    if found.settled != found.stamp and found.workers:
        return ok(name, f"{text}; the server changed a moment ago, so revocations wait for leases to end")
    return ok(name, text)


async def check_members(url: str, store: RedisStore) -> Finding:
    """Check each server's settings: after a failover a replica's settings are in force."""
    address, limits = parse_redis_url(url), RedisLimits()
    if address.topology is not Topology.SENTINEL:
        return ok("redis replicas", "not checked: the URL names no Sentinels")
    hosts = [await store.place.find(), *await store.place.servers()]
    group = await store.group()
    members = [await load_member(address, limits, host) for host in dict.fromkeys(hosts)]
    return judge_members(members, 1 if group is None else group.servers)


def judge_members(members: Sequence[MemberReport], group: int) -> Finding:
    """Whether each server keeps what it acknowledges, and takes no writes alone."""
    name = "redis replicas"
    wanted = lease_quorum(group) - 1
    problems: list[str] = []
    for one in members:
        if not one.is_reached:
            problems.append(f"{one.where} is not in reach")
            continue
        get = one.settings.get
        if one.role == "slave" and one.replicas:
            problems.append(f"{one.where} is a replica with replicas of its own: attach them to the primary")
        if get("appendonly") == "no":
            problems.append(f"{one.where}: set appendonly to yes")
        elif get("appendfsync") not in {None, "always"}:
            problems.append(
                f"{one.where}: appendfsync is {get('appendfsync')}, so a power cut can undo what it has"
            )
        if get("replica-read-only") == "no":
            problems.append(f"{one.where}: set replica-read-only to yes")
        least = get("min-replicas-to-write")
        if wanted and least is not None and least.isdigit() and int(least) < wanted:
            problems.append(
                f"{one.where}: set min-replicas-to-write to {wanted} and min-replicas-max-lag to "
                f"{MAX_LAG_SECONDS}, so that it takes no writes alone that a failover undoes"
            )
    found = ", ".join(f"{one.where} ({one.role or 'silent'})" for one in members)
    return warning(name, found, "; ".join(problems)) if problems else ok(name, found)


async def check_sentinels(url: str) -> Finding:
    """Check all Sentinels, also those that do not answer."""
    address = parse_redis_url(url)
    if address.service is None:
        return ok("redis sentinels", "the URL names none")
    return judge_sentinels(await load_sentinels(address.hosts, address.service))


def judge_sentinels(sentinels: Sequence[SentinelReport]) -> Finding:
    """Whether they answer, agree, and need a majority for a failover."""
    name = "redis sentinels"
    silent = [one.where for one in sentinels if one.is_silent]
    named = {one.primary for one in sentinels if one.primary is not None}
    known = max((one.sentinels for one in sentinels), default=0)
    quorum = min((one.quorum for one in sentinels if one.primary is not None), default=0)
    answering = f"{len(sentinels) - len(silent)} of {len(sentinels)} answer"
    found = f"{answering} and name {', '.join(sorted(named)) or 'none'}"
    if not named:
        return fail(name, found, "correct the service name in the URL, or start the Sentinels")
    advice: list[str] = []
    if silent:
        advice.append(f"{', '.join(silent)} did not answer: start it, or take it out of the URL")
    if len(named) > 1:
        advice.append("they do not agree: a failover is going on, or one is cut off")
    if known < LEAST_SENTINELS:
        advice.append(f"there are {known}: run at least {LEAST_SENTINELS}, on machines of their own")
    if 2 * quorum <= known:
        advice.append(f"a failover needs {quorum} of {known}: set the quorum to a majority")
    return (
        warning(name, found, "; ".join(advice))
        if advice
        else ok(name, f"{found}; quorum {quorum} of {known}")
    )
