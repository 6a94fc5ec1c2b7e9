"""Verify the names that `audit search` was given: a name that is known to be wrong is an error.

A mistyped tenant that answers "no record matches" reads as if it had done nothing. A name is known when any
record that was read has it, whatever else was asked for, or when the directory knows it. The directory is
read only where nothing matched, and only for this installation's own records: a copy may be another's. Where
it cannot be read, as on an auditor's machine, it cannot be determined that a name is wrong: then the nearest
name of the records is printed, and the command does not fail.

Any model on disk may be named, so a model that no record names is no error.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from gateway.adapters.redis_store import RedisStore
from gateway.audit.events import Query
from gateway.audit.index.reader import search_log
from gateway.audit.record import DecisionRecord, QuestionRecord
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.model.errors import BadNameError, Conflict, Misconfigured, Unavailable, UnknownName
from gateway.model.names import parse_key_id, parse_tenant_id
from gateway.operations.known_names import MAX_COMPARED, find_nearest
from gateway.operations.session import fact_server
from gateway.terminal.console import say
from gateway.terminal.escaping import escape_controls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.audit.record import Record
    from gateway.configuration.settings import Settings

MOST_COLLECTED = 10_000  # records, for the nearest name
_ADVICE = {"tenant": "`cachegate tenants list` shows them", "key": "`cachegate keys list` shows them"}


@dataclass(slots=True)
class SearchedNames:
    """A query that collects the records' names of the kinds that it filters by."""

    query: Query
    names: dict[str, set[str]] = field(
        default_factory=lambda: {"tenant": set(), "key": set(), "model": set()}
    )

    @property
    def asked(self) -> dict[str, str]:
        """The names that the query filters by, by kind."""
        given = {"tenant": self.query.tenant, "key": self.query.key_id, "model": self.query.model}
        return {kind: name for kind, name in given.items() if name is not None}

    def matches(self, record: Record) -> bool:
        """Whether a record matches the query; its names are collected."""
        for kind in self.asked:
            names = self.names[kind]
            if len(names) <= MAX_COMPARED:  # more are not compared
                names.update(_names_of(record, kind))
        return self.query.matches(record)

    def collect(self, folder: Path) -> None:
        """After a search by the index that found nothing: whether each name is known, and similar ones.

        Names are collected from the newest records only, as they serve for advice.
        """
        for kind, name in self.asked.items():
            for found in islice(search_log(folder, _only(kind, name)), 1):
                self.names[kind].update(_names_of(found.record, kind))
        for found in islice(search_log(folder, Query(), is_newest_first=True), MOST_COLLECTED):
            self.matches(found.record)

    def unknown(self) -> list[tuple[str, str]]:
        """The kinds and names that no record has. Empty for a kind with too many names to collect."""
        return [
            (kind, name)
            for kind, name in self.asked.items()
            if len(self.names[kind]) <= MAX_COMPARED and name not in self.names[kind]
        ]


def verify_names(searched: SearchedNames, settings: Settings | None) -> None:
    """Raises `UnknownName` for a name that neither the records nor the directory of the settings have.

    Without settings, or where the directory does not answer, it prints the nearest name of the records.
    """
    for kind, name in searched.unknown():
        names = searched.names[kind]
        known = None
        if settings is not None and kind in _ADVICE:
            with suppress(Unavailable, Misconfigured, Conflict):
                known = asyncio.run(_known_in_directory(settings, kind, name))
        if known is not None and name in known:
            continue
        nearest = find_nearest(name, {*names, *(known or ())})
        if known is not None:
            advice = _ADVICE[kind] if nearest is None else f"the nearest is {nearest}; {_ADVICE[kind]}"
            raise UnknownName(kind, name, advice)
        hint = "" if nearest is None else f"; the nearest that one names is {escape_controls(nearest)}"
        say(f"No record here names the {kind} {escape_controls(name)}{hint}.", style="yellow")


async def _known_in_directory(settings: Settings, kind: str, name: str) -> set[str]:
    """The directory's names of a kind, including this one if it exists. Writes nothing."""
    async with fact_server(settings) as url:
        store = RedisStore(url)
        try:
            listing = Listing(PlainFacts(store))
            tenants = {tenant.tenant_id for tenant in await listing.list_tenants()}
            with suppress(BadNameError):
                if kind == "key":
                    key_id = parse_key_id(name)
                    is_known = await listing.find_key(key_id) is not None
                    return {*await listing.list_key_ids([None, *tenants]), *([name] if is_known else [])}
                tenant_id = parse_tenant_id(name)
                is_known = await listing.find_tenant(tenant_id) is not None or await listing.has_keys(
                    tenant_id
                )
                return {*tenants, *([name] if is_known else [])}
            return set(tenants) if kind == "tenant" else set()
        finally:
            with suppress(Unavailable):
                await store.close()


def _only(kind: str, name: str) -> Query:
    match kind:
        case "tenant":
            return Query(tenant=name)
        case "key":
            return Query(key_id=name)
        case _:
            return Query(model=name)


def _names_of(record: Record, kind: str) -> Iterator[str]:
    if kind == "model":
        resource = record.resource if isinstance(record, DecisionRecord | QuestionRecord) else None
        found: tuple[str | None, ...] = () if resource is None else (resource.model, resource.requested)
    elif kind == "key":
        found = getattr(record, "key_id", None), getattr(record, "claimed_key_id", None)
    else:
        found = (getattr(record, "tenant", None),)
    return (name for name in found if name)
