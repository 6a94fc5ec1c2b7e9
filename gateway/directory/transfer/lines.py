"""Converts a fact to a line of JSON and back, for back-up, migration and reading by people.

    {"fact": "tenant", "layout": 1, "source": "cli", "tenant": "acme", ...}

A line is a record with the names of its fields. It is parsed by converting it to that record and decoding the
record, so a file cannot import what could not be read from a server. Generations belong to a server and are
left out. Keys are identified by their digests; no line holds a secret (I8).

Non-goal: the structure of a file of such lines (`file.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gateway.directory.records.codec import (
    CHECK_BYTES,
    LAYOUT_WITH_ALLOWS,
    LAYOUT_WITH_IMAGE_HOSTS,
    LAYOUT_WITH_LIFE,
    LAYOUT_WITH_RECORD_ID,
    LAYOUT_WITH_TIMES,
    UnreadableRecordError,
    decode_alias,
    decode_binding,
    decode_grants,
    decode_issuer,
    decode_key,
    decode_rule,
    decode_tenant,
    encode,
    encode_key,
)
from gateway.directory.records.names import DIGEST_BYTES, short_key_id
from gateway.model.facts import Alias, Grant, Grants, Key, KeyLife, ModelRule, PolicySet, Tenant
from gateway.model.issuers import Binding, Issuer, MappingRule, binding_digest, issuer_digest
from gateway.model.names import parse_key_id, parse_model_id, parse_pattern, parse_tenant_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key and its keyed hash, under which it is stored."""

    digest: bytes
    key: Key


Fact = PolicySet | Tenant | ModelRule | Alias | Grants | Issuer | Binding | StoredKey

_KINDS = {
    "tenant": Tenant,
    "rule": ModelRule,
    "alias": Alias,
    "grants": Grants,
    "issuer": Issuer,
    "binding": Binding,
    "key": Key,
}
_NAMES = {each: kind for kind, each in _KINDS.items()}
_FIELDS = {kind: each.__struct_encode_fields__[2:] for kind, each in _KINDS.items()}  # after the generation
_FIELDS |= {
    kind: tuple(name for name in names if name not in {"tenant_record", "owner_record"})
    for kind, names in _FIELDS.items()  # they are stored with the name of the tenant
}
_FIELDS["tenant"] = _FIELDS["tenant"][:-4]  # the last four stand in layouts of their own
_FIELDS["rule"] = _FIELDS["rule"][:-2]  # and so do the times of rules and grants
_FIELDS["key"] = (
    *_FIELDS["key"][:-2],
    "digest_check",
)  # `life` has a layout, the role a bit
_FIELDS["life"] = KeyLife.__struct_encode_fields__
_FIELDS["grant"] = Grant.__struct_encode_fields__[:-2]
_TIMES = Grant.__struct_encode_fields__[-2:]
_FIELDS["policy"] = tuple(name for name in PolicySet.__struct_encode_fields__ if name != "generation")

# The field that names the fact, its parser, and the decoder of its record.
_DECODERS: dict[str, tuple[str, Callable[[str], Any], Callable[[bytes, Any], Fact]]] = {
    "tenant": ("tenant", parse_tenant_id, decode_tenant),
    "rule": ("pattern", parse_pattern, decode_rule),
    "alias": ("alias", parse_model_id, decode_alias),
    "grants": ("tenant", parse_tenant_id, decode_grants),
}

_json = msgspec.json.Encoder()
_pack = msgspec.msgpack.Encoder()
_documents = msgspec.json.Decoder(dict[str, Any])
BROKEN = (msgspec.MsgspecError, UnreadableRecordError, ValueError, OverflowError, RecursionError)


def fact_line(fact: Fact) -> bytes:
    """Encode a fact as a line."""
    match fact:
        case PolicySet():
            document = {"fact": "policy", **{name: getattr(fact, name) for name in _FIELDS["policy"]}}
        case StoredKey(digest=digest, key=key):
            document = _named("key", encode_key(key, digest))
            del document["digest_check"]  # derived from the digest
            if "life" in document:
                document["life"] = dict(zip(_FIELDS["life"], document["life"], strict=True))
            document |= {"key_id": key.key_id, "digest": digest.hex()}
        case Grants():
            document = _named("grants", encode(fact))
            fields = _grant_fields(document["layout"])
            document["grants"] = [dict(zip(fields, values, strict=True)) for values in document["grants"]]
        case Issuer():
            document = _named("issuer", encode(fact))
            document["rules"] = msgspec.to_builtins(list(map(_rule_members, fact.rules)), order="sorted")
        case _:
            document = _named(_NAMES[type(fact)], encode(fact))
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
    """Return a record with the names of its fields."""
    _, layout, _, *values = msgspec.msgpack.decode(record)
    return {"fact": kind, "layout": layout, **dict(zip(_fields(kind, layout), values, strict=True))}


def _fields(kind: str, layout: object) -> tuple[str, ...]:
    """The fields of a record of this layout."""
    if kind == "tenant" and layout == LAYOUT_WITH_IMAGE_HOSTS:
        return (*_FIELDS[kind], "image_hosts")
    if kind == "tenant" and layout == LAYOUT_WITH_ALLOWS:
        return (*_FIELDS[kind], "image_hosts", "allows")
    if kind == "tenant" and layout == LAYOUT_WITH_RECORD_ID:
        return (*_FIELDS[kind], "image_hosts", "allows", "record_id", "removal")
    if kind == "rule" and layout == LAYOUT_WITH_TIMES:
        return (*_FIELDS[kind], *_TIMES)
    if kind == "key" and layout == LAYOUT_WITH_LIFE:
        return (*_FIELDS[kind][:-1], "life", "digest_check")
    return _FIELDS[kind]


def _grant_fields(layout: object) -> tuple[str, ...]:
    return (*_FIELDS["grant"], *_TIMES) if layout == LAYOUT_WITH_TIMES else _FIELDS["grant"]


def _record(kind: str, document: dict[str, Any]) -> bytes:
    """The inverse of `_named`: the record that has exactly these fields."""
    layout, *values = _values(document, ("layout", *_fields(kind, document.get("layout"))))
    return _pack.encode([_KINDS[kind].__struct_config__.tag, layout, 0, *values])


def _fact_of(document: dict[str, Any]) -> Fact:  # noqa: C901 -- one case for each kind
    kind = document.pop("fact", None)
    match kind:
        case "policy":
            _values(document, _FIELDS["policy"])
            return msgspec.convert(document, PolicySet)
        case "tenant" | "rule" | "alias" | "grants":
            if kind == "grants":
                if not isinstance(grants := document.get("grants"), list):
                    raise UnreadableRecordError("grants is missing or no list")
                fields = _grant_fields(document.get("layout"))
                document["grants"] = [_grant_values(grant, fields) for grant in grants]
            field, parse, decode = _DECODERS[kind]
            name, _, _ = _text(document, field).partition(" ")  # what follows is a record's id
            return decode(_record(kind, document), parse(name if kind == "grants" else document[field]))
        case "issuer":
            if not isinstance(rules := document.get("rules"), list):
                raise UnreadableRecordError("rules is missing or no list")
            document["rules"] = [_rule_values(rule) for rule in rules]
            return decode_issuer(_record(kind, document), issuer_digest(_text(document, "url")))
        case "binding":
            digest = binding_digest(_text(document, "url"), _text(document, "subject"))
            return decode_binding(_record(kind, document), digest)
        case "key":
            digest = bytes.fromhex(_text(document, "digest"))
            if len(digest) != DIGEST_BYTES:
                raise UnreadableRecordError("a digest is 64 hex digits")
            del document["digest"]
            if "digest_check" in document:
                raise UnreadableRecordError("digest_check follows from the digest")
            document["digest_check"] = digest[:CHECK_BYTES]
            if "life" in document:
                document["life"] = _life_values(document["life"])
            document["key_id"] = short_key_id(parse_key_id(_text(document, "key_id"))).decode()
            return StoredKey(digest=digest, key=decode_key(_record(kind, document), digest))
    raise UnreadableRecordError("no such kind of fact")


def _values(document: dict[str, Any], fields: Iterable[str]) -> list[Any]:
    """Return the values of exactly these fields."""
    if odd := document.keys() ^ set(fields):
        raise UnreadableRecordError(f"missing or unknown: {', '.join(sorted(odd))}")
    return [document[name] for name in fields]


def _life_values(life: object) -> list[Any]:
    fields = _FIELDS["life"]
    if not isinstance(life, dict) or life.keys() != set(fields):
        raise UnreadableRecordError(f"a key's life has the fields {', '.join(fields)}")
    return [life[name] for name in fields]


def _grant_values(grant: object, fields: tuple[str, ...]) -> list[Any]:
    if not isinstance(grant, dict) or grant.keys() != set(fields):
        raise UnreadableRecordError(f"a grant has the fields {', '.join(fields)}")
    return [grant[name] for name in fields]


def _rule_members(rule: MappingRule) -> dict[str, Any]:
    """Return a mapping rule with the names of its fields, and its claims by name."""
    members = {name: getattr(rule, name) for name in MappingRule.__struct_fields__}
    return members | {"claims": {one.claim: one.values for one in rule.claims}}


def _rule_values(rule: object) -> list[Any]:
    fields = MappingRule.__struct_fields__
    if not isinstance(rule, dict) or rule.keys() != set(fields) or not isinstance(rule["claims"], dict):
        raise UnreadableRecordError(f"a rule has the fields {', '.join(fields)}")
    claims = [[claim, values] for claim, values in rule["claims"].items()]
    return [claims if name == "claims" else rule[name] for name in fields]


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise UnreadableRecordError(f"{name} is missing or no text")
    return value
