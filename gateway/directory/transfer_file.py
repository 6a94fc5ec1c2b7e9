"""A file of facts: what `directory export` writes and `directory import` reads.

    {"cachegate": "directory", "version": 1, "generation": 7, "history": "...", "peppers": {...}}
    {"fact": "policy", ...}   {"fact": "tenant", ...}   {"fact": "rule", ...}
    {"fact": "alias", ...}    {"fact": "grants", ...}   {"fact": "key", "digest": "...", ...}
    {"end": "directory", "facts": 6, "generation": 7}

Facts stand in one order, each once, and reading checks that: rules before those that cover more,
grants after rules, keys last of all. So half an import is never more open than the whole. The last
line says how many facts there were: a file that was cut short is not taken for a whole one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.directory.record_layout import UnreadableRecordError
from gateway.directory.transfer_lines import BROKEN, Fact, parse_fact
from gateway.model.errors import Misconfigured
from gateway.model.facts import Alias, Grants, ModelRule, PolicySet, Tenant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VERSION = 1
_MARK = "directory"


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the facts come from, and the fingerprints of the peppers under which the keys are stored."""

    cachegate: str
    version: int
    generation: int
    history: str
    peppers: dict[str, str]


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many facts there were, and the generation by then: another one says that some moved meanwhile."""

    end: str
    facts: int
    generation: int


def header_line(*, generation: int, history: str, peppers: dict[str, str]) -> bytes:
    """The first line."""
    header = Header(cachegate=_MARK, version=VERSION, generation=generation, history=history, peppers=peppers)
    return msgspec.json.encode(header) + b"\n"


def end_line(*, facts: int, generation: int) -> bytes:
    """The last line."""
    return msgspec.json.encode(End(end=_MARK, facts=facts, generation=generation)) + b"\n"


def read_lines(lines: Iterable[bytes], where: str) -> tuple[Header, Iterator[Fact]]:
    """The header and the facts of a file. Raises `Misconfigured` with the line that is not as above."""
    numbered = iter(enumerate(lines, 1))
    try:
        _, raw_header = next(numbered)
        header = msgspec.json.decode(raw_header, type=Header)
    except (StopIteration, *BROKEN) as error:
        raise Misconfigured(
            f"{where}:1", "is not the head of a file that `directory export` wrote"
        ) from error
    if (header.cachegate, header.version) != (_MARK, VERSION):
        raise Misconfigured(f"{where}:1", f"expected an export of version {VERSION}")
    return header, _facts(numbered, where)


def place_of(fact: Fact) -> tuple[int, int, str]:
    """Where in a file a fact stands: what closes before what opens, the keys last."""
    match fact:
        case PolicySet():
            return 0, 0, ""
        case Tenant():
            return 1, 0, fact.tenant_id
        case ModelRule():
            return 2, -len(fact.pattern.removesuffix("/*")), fact.pattern  # narrow ones first
        case Alias():
            return 3, 0, fact.alias
        case Grants():
            return 4, 0, fact.tenant_id
        case _:
            return 5, 0, fact.key.key_id


def _facts(numbered: Iterator[tuple[int, bytes]], where: str) -> Iterator[Fact]:
    count, place = 0, (-1, 0, "")
    for number, raw in numbered:
        if raw.startswith(b'{"end":'):
            _verify_end(raw, count, f"{where}:{number}")
            if next(numbered, None) is not None:
                raise Misconfigured(f"{where}:{number + 1}", "something follows the last line")
            return
        try:
            fact = parse_fact(raw)
        except UnreadableRecordError as error:
            raise Misconfigured(f"{where}:{number}", f"is not a fact: {error}") from error
        if place_of(fact) <= place:
            raise Misconfigured(
                f"{where}:{number}", "stands twice or out of order: keep the order in which export writes"
            )
        count, place = count + 1, place_of(fact)
        yield fact
    raise Misconfigured(where, "breaks off: its last line, which says how many facts there are, is missing")


def _verify_end(raw: bytes, count: int, where: str) -> None:
    try:
        end = msgspec.json.decode(raw, type=End)
    except BROKEN as error:
        raise Misconfigured(where, f"is not the last line of an export: {error}") from error
    if (end.end, end.facts) != (_MARK, count):
        raise Misconfigured(where, f"says {end.facts} facts, but {count} lines of facts came before it")
