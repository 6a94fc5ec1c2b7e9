"""One look: what was read from the store for one answer, decoded once, and stamped.

The store is asked for bytes in as few round trips as possible; the stamp then lists exactly the
names that the answer used, with these bytes, absent ones too: "there is no rule" is as much of a
reason as a rule. What does not parse is remembered here, so that each answer that touches it says so.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from gateway.directory import names
from gateway.directory.records import decode_alias, decode_rule
from gateway.directory.rows import UnreadableRecordError
from gateway.model.facts import Stamp
from gateway.model.names import ancestors
from gateway.model.standing import standing_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.model.facts import Alias, ModelRule, Standing
    from gateway.model.names import ModelId
    from gateway.model.ports import FactStore

_T = TypeVar("_T")

MAX_NAMES_PER_READ = 1_000  # a catalogue page asks for thousands; one huge MGET would hold up everybody else


class Look:
    """What has been read for one answer: bytes by name, the oldest generation, what did not parse."""

    def __init__(self, store: FactStore, report: Callable[[str], None]) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self.unreadable: dict[bytes, str] = {}
        self._decoded: dict[bytes, object] = {}
        self._generations: list[int] = []
        self._store = store
        self._report = report

    async def fetch(self, wanted: Iterable[bytes]) -> None:
        """Read what has not been read yet."""
        missing = [name for name in dict.fromkeys(wanted) if name not in self.values]
        for start in range(0, len(missing), MAX_NAMES_PER_READ):
            page = missing[start : start + MAX_NAMES_PER_READ]
            generation, values = await self._store.read(page)
            self._generations.append(generation)
            self.values.update(zip(page, values, strict=True))

    async def follow(self, wanted: Iterable[bytes]) -> None:
        """Read these in any case; what is known already stays as it was read first."""
        known = dict(self.values)
        self.values.clear()
        try:
            await self.fetch(wanted)
        finally:
            self.values.update(known)

    def decoded(self, name: bytes, decode: Callable[[bytes], _T]) -> _T | None:
        """The fact under a name; None when it is absent or, which is reported, does not parse."""
        raw = self.values[name]
        if raw is None or name in self.unreadable:
            return None
        if name not in self._decoded:
            try:
                self._decoded[name] = decode(raw)
            except UnreadableRecordError:
                self.unreadable[name] = name.decode(errors="replace")
                self._report(self.unreadable[name])
                return None
        return self._decoded[name]  # type: ignore[return-value] # one name is always decoded the same way

    def alias_of(self, model: ModelId) -> Alias | None:
        """What this id stands for, if it is another name of a model."""
        return self.decoded(names.alias_fact(model), partial(decode_alias, alias=model))

    def standing_of(self, model: ModelId) -> Standing:
        """How a model stands, by those of its rules that parse."""
        rules: list[ModelRule] = []
        for pattern in ancestors(model):
            rule = self.decoded(names.rule_fact(pattern), partial(decode_rule, pattern=pattern))
            if rule is not None:
                rules.append(rule)
        return standing_of(rules)

    def stamp(self, used: Iterable[bytes]) -> Stamp:
        """The stamp of an answer that used these names."""
        return Stamp(min(self._generations, default=0), tuple((name, self.values[name]) for name in used))


def names_about(models: Iterable[ModelId]) -> list[bytes]:
    """The names of all records about these models: the alias, and the rules that may cover each."""
    about: list[bytes] = []
    for model in models:
        about.append(names.alias_fact(model))
        about += map(names.rule_fact, ancestors(model))
    return about
