"""Doctor, the facts: the server that holds them, the rules in force, and records that do not parse.

Uses a store of its own and not a session: a session records peppers and refuses unknown ones, while here an
unknown pepper is a finding and nothing is written.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from gateway.adapters.history_file import HistoryFile
from gateway.adapters.redis_diagnosis import diagnosed
from gateway.adapters.redis_store import RedisStore
from gateway.adapters.redis_time import load_server_time
from gateway.directory.edits.peppers import find_pepper_not_held
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.identity.pepper import load_peppers
from gateway.model.errors import CachegateError, Conflict, Misconfigured, Unavailable
from gateway.operations.doctor.findings import fail, ok, run_check_async, warning
from gateway.operations.doctor.fleet import check_history, check_lease, check_workers
from gateway.operations.doctor.group import check_group, check_members, check_sentinels
from gateway.operations.doctor.issuers import check_issuers
from gateway.operations.doctor.policy import check_policy, check_policy_folder
from gateway.operations.session import fact_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.adapters.clock import SystemClock
    from gateway.adapters.redis_server import ServerReport
    from gateway.configuration.settings import Settings
    from gateway.model.names import ModelId
    from gateway.operations.doctor.findings import Finding

NEEDS_SERVER = (
    "redis server",
    "redis clock",
    "redis group",
    "redis replicas",
    "redis sentinels",
    "facts",
    "history",
    "workers",
    "lease",
    "pepper in redis",
    "policy",
    "policy folder",
    "issuers",
    "records",
)
WARN_SECONDS, FAIL_SECONDS = 2.0, 60.0  # of difference; NTP keeps machines within milliseconds
MAX_NAMED = 5  # records in one row


class FactFindings(msgspec.Struct, frozen=True):
    """The findings, and the models that the facts name: the cache is checked with them."""

    findings: tuple[Finding, ...]
    known_models: frozenset[ModelId] = frozenset()


class CheckedServer(msgspec.Struct, frozen=True, kw_only=True):
    """The server, once it was reached, and what the checks need."""

    settings: Settings
    clock: SystemClock
    url: str
    store: RedisStore
    listing: Listing
    unreadable: list[str]


async def check_facts(settings: Settings, clock: SystemClock) -> FactFindings:
    """All findings about the facts. If the server cannot be reached, each check that needs it says so."""
    if settings.redis_url is None and not settings.state.is_dir():
        return _out_of_reach(
            "there is no state folder for the embedded Valkey to live in",
            "is CACHEGATE_STATE right? If it is, run `cachegate init`",
        )
    try:
        async with _reached(settings, clock) as server:
            return await _examine(server)
    except (Unavailable, Misconfigured) as failure:
        return _out_of_reach(str(failure), "start the server, or correct CACHEGATE_REDIS_URL")


async def _examine(server: CheckedServer) -> FactFindings:
    checks: dict[str, Callable[[], Awaitable[Finding]]] = {
        "redis server": partial(_check_server, server),
        "redis clock": partial(_check_server_clock, server),
        "redis group": partial(check_group, server.store, server.clock),
        "redis replicas": partial(check_members, server.url, server.store),
        "redis sentinels": partial(check_sentinels, server.url),
        "facts": partial(_check_generation, server),
        "history": partial(check_history, server.store, server.settings),
        "workers": partial(check_workers, server.store, server.settings),
        "lease": partial(check_lease, server.listing, server.settings),
        "pepper in redis": partial(_check_fingerprints, server),
        "policy": partial(check_policy, server.listing),
        "policy folder": partial(check_policy_folder, server.settings, server.listing, server.clock),
        "issuers": partial(check_issuers, server.settings, server.listing, server.clock),
        "records": partial(_check_records, server),
    }
    where = ok("redis", f"{server.store.display} answers")
    findings = [where, *[await run_check_async(name, check) for name, check in checks.items()]]
    known: frozenset[ModelId] = frozenset()
    with suppress(CachegateError):  # a finding above says what is wrong
        known = await server.listing.known_models()
    return FactFindings(tuple(findings), known)


@asynccontextmanager
async def _reached(settings: Settings, clock: SystemClock) -> AsyncIterator[CheckedServer]:
    async with fact_server(settings) as url:
        store = RedisStore(url, history=HistoryFile(settings.history_file))
        unreadable: list[str] = []
        listing = Listing(PlainFacts(store), on_unreadable=unreadable.append)
        try:
            async with diagnosed(url):
                await store.moment()
            yield CheckedServer(
                settings=settings, clock=clock, url=url, store=store, listing=listing, unreadable=unreadable
            )
        finally:
            with suppress(Unavailable):
                await store.close()


def _out_of_reach(why: str, advice: str) -> FactFindings:
    findings = [fail("redis", why, advice)]
    findings += [warning(name, "not checked: Redis is not in reach", "see redis") for name in NEEDS_SERVER]
    return FactFindings(tuple(findings))


async def _check_server(server: CheckedServer) -> Finding:
    return judge_server(await server.store.check_server())


def judge_server(report: ServerReport) -> Finding:
    """Whether the server's settings keep what is written to it."""
    aof = f"AOF {report.appendfsync or 'on'}" if report.is_aof_on else "AOF off"
    policy = report.maxmemory_policy or "maxmemory-policy unknown"
    found = f"{report.product} {report.version}, {report.role}, {aof}, {policy}"
    if not report.problems:
        return ok("redis server", found)
    advice = "; ".join(report.problems)
    is_primary = report.role in {"master", "primary"}
    is_broken = report.missing_rights or report.may_evict or not is_primary or not report.is_aof_healthy
    return (fail if is_broken else warning)("redis server", found, advice)


async def _check_server_clock(server: CheckedServer) -> Finding:
    before = server.clock.now()
    theirs = await load_server_time(server.url)
    return judge_clocks(before=before, after=server.clock.now(), theirs=theirs)


def judge_clocks(*, before: float, after: float, theirs: float) -> Finding:
    """Whether two machines agree on the time: theirs was read between these two of ours."""
    apart = max(0.0, theirs - after, before - theirs)
    found = f"{apart:.1f} s apart from ours"
    advice = "keep both machines' clocks with NTP: keys expire by ours"
    if apart > FAIL_SECONDS:
        return fail("redis clock", found, advice)
    return warning("redis clock", found, advice) if apart > WARN_SECONDS else ok("redis clock", found)


async def _check_generation(server: CheckedServer) -> Finding:
    generation, history = await server.store.generation(), await server.store.history()
    if history is None:
        return fail(
            "facts", "this server has no facts of ours", "run `cachegate init`, or name the right server"
        )
    return ok("facts", f"generation {generation} of history {history}")


async def _check_fingerprints(server: CheckedServer) -> Finding:
    """Whether the peppers are those of Redis: keys stored under another pepper would all be unknown."""
    name = "pepper in redis"
    held = load_peppers(server.settings.pepper_folder).fingerprints()
    known = await server.listing.pepper_fingerprints()
    missing = find_pepper_not_held(held, known)
    if missing is not None:
        return fail(
            name,
            f"{missing}, under which keys in Redis were stored, is not here, or is another one",
            "copy the pepper folder from the node that made them, or name the Redis that belongs here",
        )
    new = sorted(held.keys() - known.keys())
    if new:
        return warning(name, f"{', '.join(new)}: never used with this server", "any command notes it")
    return ok(name, "all that keys were stored under are here")


async def _check_records(server: CheckedServer) -> Finding:
    """Read every record once: one that does not parse denies, and nothing else reports it."""
    listing, count = server.listing, 0
    tenants = await listing.list_tenants()
    count += len(tenants)
    for found in (
        *(await listing.list_rules(), await listing.list_aliases(), await listing.list_all_grants()),
        *(await listing.list_issuers(), await listing.list_all_bindings()),
    ):
        count += len(found)
    for owner in (None, *(tenant.tenant_id for tenant in tenants)):
        try:
            async for _ in listing.each_key(owner):
                count += 1
        except Conflict as error:
            server.unreadable.append(str(error))
    return judge_records(count, server.unreadable)


def judge_records(count: int, unreadable: list[str]) -> Finding:
    """Whether every record parses."""
    names = list(dict.fromkeys(unreadable))
    if not names:
        return ok("records", f"all {count} parse")
    shown = ", ".join(names[:MAX_NAMED]) + (
        f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    )
    return fail(
        "records",
        f"{len(names)} do not parse, and what they say is denied: {shown}",
        "restore them from an export, or delete them with DEL and enter the facts again",
    )
