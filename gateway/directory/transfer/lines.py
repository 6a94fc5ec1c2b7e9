"""Converts a fact to a line of JSON and back, for back-up, migration and reading by people.

    {"fact": "tenant", "layout": 1, "source": "cli", "tenant": "acme", ...}

A line is a record's row with the names of its fields. It is parsed by converting it to that record and
decoding the record, so a file cannot import what could not be read from a server. Generations belong to a
server and are left out. Keys are identified by their digests; no line holds a secret (I8).

Non-goal: the structure of a file of such lines (`file.py`).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.directory.records.codec import (
    decode_alias,
    decode_grants,
    decode_key,
    decode_rule,
    decode_tenant,
    encode_alias,
    encode_grants,
    encode_key,
    encode_rule,
    encode_tenant,
)
from gateway.directory.records.layout import (
    CHECK_BYTES,
    AliasRow,
    GrantRow,
    GrantsRow,
    KeyRow,
    PolicyTextRow,
    Row,
    RuleRow,
    TenantRow,
    UnreadableRecordError,
)
from gateway.directory.records.names import DIGEST_BYTES, short_key_id
from gateway.model.facts import Alias, Grants, Key, ModelRule, PolicySet, Tenant
from gateway.model.names import parse_key_id, parse_model_id, parse_pattern, parse_tenant_id


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key and its keyed hash, under which it is stored."""

    digest: bytes
    key: Key


Fact = PolicySet | Tenant | ModelRule | Alias | Grants | StoredKey

_ROWS: dict[str, type[Row]] = {
    "tenant": TenantRow,
    "rule": RuleRow,
    "alias": AliasRow,
    "grants": GrantsRow,
    "key": KeyRow,
}
_json = msgspec.json.Encoder()
_pack = msgspec.msgpack.Encoder()
_documents = msgspec.json.Decoder(dict[str, Any])
BROKEN = (msgspec.MsgspecError, UnreadableRecordError, ValueError, OverflowError, RecursionError)


def fact_line(fact: Fact) -> bytes:
    """Encode a fact as a line."""
    match fact:
        case PolicySet():
            document: dict[str, Any] = {
                "fact": "policy",
                "digest": fact.digest,
                "source": fact.source,
                "schema": fact.schema,
                "policies": fact.policies,
            }
        case Tenant():
            document = _named("tenant", encode_tenant(fact))
        case ModelRule():
            document = _named("rule", encode_rule(fact))
        case Alias():
            document = _named("alias", encode_alias(fact))
        case Grants():
            document = _named("grants", encode_grants(fact))
            document["grants"] = [
                dict(zip(GrantRow.__struct_fields__, grant, strict=True)) for grant in document["grants"]
            ]
        case _:
            document = _named("key", encode_key(fact.key, fact.digest))
            del document["digest_check"]  # derived from the digest
            document["key_id"] = fact.key.key_id
            document["digest"] = fact.digest.hex()
    return _json.encode(document) + b"\n"


def unnumbered(fact: Fact) -> Fact:
    """Return the fact without its server's generation, so that facts of two servers can be compared."""
    if isinstance(fact, StoredKey):
        return replace(fact, key=replace(fact.key, generation=0))
    return replace(fact, generation=0)


def parse_fact(raw: bytes) -> Fact:
    """Parse a line. Raises `UnreadableRecordError` unless it is exactly one fact."""
    try:
        return _fact_of(_documents.decode(raw))
    except BROKEN as error:
        raise UnreadableRecordError(str(error) or type(error).__name__) from error


def _named(kind: str, record: bytes) -> dict[str, Any]:
    """Return a record's row with the names of its fields."""
    _, *values = msgspec.msgpack.decode(record)
    document = {"fact": kind, **dict(zip(_ROWS[kind].__struct_fields__, values, strict=True))}
    del document["generation"]
    return document


def _record(kind: str, document: dict[str, Any]) -> bytes:
    """The inverse of `_named`: the record whose row has exactly these fields."""
    row = _ROWS[kind]
    odd = document.keys() ^ (set(row.__struct_fields__) - {"generation"})
    if odd:
        raise UnreadableRecordError(f"missing or unknown: {', '.join(sorted(odd))}")
    fields = {**document, "generation": 0}
    return _pack.encode([row.__struct_config__.tag, *(fields[name] for name in row.__struct_fields__)])


def _fact_of(document: dict[str, Any]) -> Fact:
    kind = document.pop("fact", None)
    match kind:
        case "policy":
            text = msgspec.convert(
                [7, 1, document.pop("schema", None), document.pop("policies", None)], PolicyTextRow
            )
            rest = msgspec.convert(document, _PolicyRest)
            return PolicySet(
                schema=text.schema, policies=tuple(text.policies), digest=rest.digest, source=rest.source
            )
        case "tenant":
            return decode_tenant(_record(kind, document), parse_tenant_id(_text(document, "tenant")))
        case "rule":
            return decode_rule(_record(kind, document), parse_pattern(_text(document, "pattern")))
        case "alias":
            return decode_alias(_record(kind, document), parse_model_id(_text(document, "alias")))
        case "grants":
            if not isinstance(grants := document.get("grants"), list):
                raise UnreadableRecordError("grants is missing or no list")
            document["grants"] = [_grant_values(grant) for grant in grants]
            return decode_grants(_record(kind, document), parse_tenant_id(_text(document, "tenant")))
        case "key":
            digest = bytes.fromhex(_text(document, "digest"))
            if len(digest) != DIGEST_BYTES:
                raise UnreadableRecordError("a digest is 64 hex digits")
            del document["digest"]
            if "digest_check" in document:
                raise UnreadableRecordError("digest_check follows from the digest")
            document["digest_check"] = digest[:CHECK_BYTES]
            document["key_id"] = short_key_id(parse_key_id(_text(document, "key_id"))).decode()
            return StoredKey(digest=digest, key=decode_key(_record(kind, document), digest))
    raise UnreadableRecordError("no such kind of fact")


class _PolicyRest(msgspec.Struct, forbid_unknown_fields=True):
    digest: str
    source: str


def _grant_values(grant: object) -> list[Any]:
    if not isinstance(grant, dict) or grant.keys() != set(GrantRow.__struct_fields__):
        raise UnreadableRecordError(f"a grant has the fields {', '.join(GrantRow.__struct_fields__)}")
    return [grant[name] for name in GrantRow.__struct_fields__]


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise UnreadableRecordError(f"{name} is missing or no text")
    return value
