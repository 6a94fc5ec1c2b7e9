"""The file format of `directory export` and `directory import`: JSON lines with a header and an end line.

    {"cachegate": "directory", "version": 1, "generation": 7, "history": "...", "peppers": {...}}
    {"fact": "policy", ...}   {"fact": "tenant", ...}   {"fact": "rule", ...}
    {"fact": "alias", ...}    {"fact": "grants", ...}   {"fact": "binding", ...}  {"fact": "issuer", ...}
    {"fact": "key", "digest": "...", ...}
    {"end": "directory", "facts": 6, "generation": 7}

Facts have one fixed order, each occurs once, and reading verifies both: narrow rules before broader ones,
grants after rules, bindings (some are revoked) before the issuers whose tokens they end, keys last. So a
partial import never allows more than the whole. The last line holds the number of facts, so that a truncated
file is detected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.directory.records.codec import UnreadableRecordError
from gateway.directory.transfer.lines import BROKEN, Fact, parse_fact
from gateway.model.errors import Misconfigured
from gateway.model.facts import Alias, Grants, ModelRule, PolicySet, Tenant
from gateway.model.issuers import Binding, Issuer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VERSION = 1
_MARK = "directory"


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The server of the facts, and the fingerprints of the peppers under which its keys are stored."""

    cachegate: str
    version: int
    generation: int
    history: str
    peppers: dict[str, str]


class ExportEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The number of facts, and the final generation; facts changed meanwhile if the header's differs."""

    end: str
    facts: int
    generation: int


def header_line(*, generation: int, history: str, peppers: dict[str, str]) -> bytes:
    """Return the first line."""
    header = Header(cachegate=_MARK, version=VERSION, generation=generation, history=history, peppers=peppers)
    return msgspec.json.encode(header) + b"\n"


def end_line(*, facts: int, generation: int) -> bytes:
    """Return the last line."""
    return msgspec.json.encode(ExportEnd(end=_MARK, facts=facts, generation=generation)) + b"\n"


def read_lines(lines: Iterable[bytes], where: str) -> tuple[Header, Iterator[Fact]]:
    """Read the header and the facts of a file. Raises `Misconfigured` with the line that is invalid."""
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


def place_of(fact: Fact) -> tuple[int, int, str]:  # noqa: PLR0911 -- one for each kind
    """Return the sort key of a fact in a file: what restricts before what allows, keys last."""
    match fact:
        case PolicySet():
            return 0, 0, ""
        case Tenant():
            return 1, 0, fact.tenant_id
        case ModelRule():
            return 2, -len(fact.pattern.removesuffix("/*")), fact.pattern  # narrow patterns first
        case Alias():
            return 3, 0, fact.alias
        case Grants():
            return 4, 0, fact.tenant_id
        case Binding():
            return 5, 0, fact.binding_id
        case Issuer():
            return 6, 0, fact.url
        case _:
            return 7, 0, fact.key.key_id


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
        end = msgspec.json.decode(raw, type=ExportEnd)
    except BROKEN as error:
        raise Misconfigured(where, f"is not the last line of an export: {error}") from error
    if (end.end, end.facts) != (_MARK, count):
        raise Misconfigured(where, f"says {end.facts} facts, but {count} lines of facts came before it")
