"""The records read for one answer: each decoded once and listed in the answer's stamp.

Records are read in as few round trips as possible. The stamp then lists exactly the leaves that the answer
used, absent ones included: the absence of a rule can decide as much as a rule. Records that do not parse are
kept here, so that each answer that uses them reports them.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from gateway.directory.records import names
from gateway.directory.records.codec import UnreadableRecordError, decode_alias, decode_rule
from gateway.directory.records.fact_sizes import held_bytes
from gateway.model.names import ancestors
from gateway.model.stamps import Leaf, Stamp
from gateway.model.standing import standing_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from gateway.model.facts import Alias, ModelRule, Standing
    from gateway.model.names import ModelId
    from gateway.model.ports import FactSource

    Reading = Awaitable[tuple[int, list[Leaf]]]

_T = TypeVar("_T")
_UNREADABLE = object()

DECODED_HERE_BYTES = 32 * 1024  # of a record: about 2 ms of decoding
# A catalogue page asks for thousands of names; one huge MGET would delay all other clients.
MAX_NAMES_PER_READ = 1_000


class ReadSet:
    """What was read for one answer: leaves by name, the oldest generation, the names that do not parse."""

    def __init__(self, source: FactSource, report: Callable[[str], None] | None = None) -> None:
        self.leaves: dict[bytes, Leaf] = {}
        self.unreadable: dict[bytes, str] = {}
        self._generations: list[int] = []
        self._source = source
        self._report = report

    async def fetch(self, wanted: Iterable[bytes]) -> None:
        """Read what has not been read yet, from memory where it is cached."""
        await self._read(wanted, self._source.read)

    def fetch_now(self, wanted: Sequence[bytes]) -> bool:
        """Take from memory what has not been read yet; whether all of it was there."""
        missing = [name for name in dict.fromkeys(wanted) if name not in self.leaves]
        leaves = self._source.find(missing)
        if leaves is None:
            return False
        self.leaves.update(zip(missing, leaves, strict=True))
        return True

    async def fetch_afresh(self, wanted: Iterable[bytes]) -> None:
        """Read what has not been read yet from the store, whatever is cached."""
        await self._read(wanted, self._source.read_afresh)

    async def decode_aside(self, name: bytes, decode: Callable[[bytes], _T]) -> None:
        """Decode a large record in a thread before it is used, so that the event loop is not blocked."""
        leaf = self.leaves[name]
        if leaf.value is None or leaf.decoded is not None or len(leaf.value) <= DECODED_HERE_BYTES:
            return
        try:
            fact, size = await asyncio.to_thread(_decoded, decode, leaf.value)
        except UnreadableRecordError:
            return  # `decoded` reports it
        if leaf.decoded is None:
            leaf.keep(fact, size)

    def decoded(self, name: bytes, decode: Callable[[bytes], _T]) -> _T | None:
        """Return the fact under a name; None if it is absent or, after a report, does not parse.

        A leaf is decoded once and shared: one name is always decoded the same way.
        """
        leaf = self.leaves[name]
        if leaf.value is None or name in self.unreadable:
            return None
        if leaf.decoded is None:
            try:
                leaf.keep(*_decoded(decode, leaf.value))
            except UnreadableRecordError:
                leaf.decoded = _UNREADABLE
        if leaf.decoded is _UNREADABLE:
            self.unreadable[name] = name.decode(errors="replace")
            if self._report is not None:
                self._report(self.unreadable[name])
            return None
        return leaf.decoded  # type: ignore[return-value] # one name is always decoded the same way

    def alias_of(self, model: ModelId) -> Alias | None:
        """Return the alias of this name, if it is one."""
        return self.decoded(names.alias_fact(model), partial(decode_alias, alias=model))

    def standing_of(self, model: ModelId) -> Standing:
        """Return a model's standing by those of its rules that parse."""
        rules: list[ModelRule] = []
        for pattern in ancestors(model):
            rule = self.decoded(names.rule_fact(pattern), partial(decode_rule, pattern=pattern))
            if rule is not None:
                rules.append(rule)
        return standing_of(rules)

    def stamp(self, used: Iterable[bytes]) -> Stamp:
        """Return the stamp of an answer that used these names."""
        return Stamp(min(self._generations, default=0), tuple(self.leaves[name] for name in used))

    async def _read(self, wanted: Iterable[bytes], read: Callable[[Sequence[bytes]], Reading]) -> None:
        missing = [name for name in dict.fromkeys(wanted) if name not in self.leaves]
        for start in range(0, len(missing), MAX_NAMES_PER_READ):
            page = missing[start : start + MAX_NAMES_PER_READ]
            generation, leaves = await read(page)
            self._generations.append(generation)
            self.leaves.update(zip(page, leaves, strict=True))


def decode_nothing(decode: Callable[[bytes], object], raw: bytes) -> None:
    """Decode a record for nobody, in all steps of `ReadSet.decoded`, for the time that they take."""
    Leaf(b"", raw).keep(*_decoded(decode, raw))


def _decoded(decode: Callable[[bytes], _T], raw: bytes) -> tuple[_T, int]:
    """Decode the fact, and compute its size."""
    fact = decode(raw)
    return fact, held_bytes(fact, raw)


def names_about(models: Iterable[ModelId]) -> list[bytes]:
    """Return the names of all records about these models: the alias, and the rules that may cover each."""
    about: list[bytes] = []
    for model in models:
        about.append(names.alias_fact(model))
        about += map(names.rule_fact, ancestors(model))
    return about
