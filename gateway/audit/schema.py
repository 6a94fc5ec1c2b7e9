"""The published schema of audit records: JSON Schema (2020-12), one definition a kind, with a version.

It is made from the types in `record.py`, so it cannot differ from what is written. It describes records of
the version that this release writes; older ones are read too, and have no schema. A consumer that validates
should accept kinds and members that it does not know of: a later minor release may add some without another
version. What is there keeps its name and meaning within a version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.audit.canonical import MAX_INTEGER
from gateway.audit.record import SCHEMA_VERSION, Record
from gateway.model.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Iterable

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_ID = f"urn:cachegate:audit-record:{SCHEMA_VERSION}"

_DIGEST = "^[0-9a-f]{64}$"
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"
_RECORD_ID = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
_PATTERNS = {
    **dict.fromkeys(("hash", "prev", "sha256", "listed_hash", "after_hash", "tree_root", "found"), _DIGEST),
    **dict.fromkeys(("time", "since", "second", "moment", "until"), _TIME),
    **dict.fromkeys(("id", "decision_id", "change_id", "ask_id"), _RECORD_ID),
    "md5": "^[0-9a-f]{32}$",
    "signature": "^[0-9a-f]{128}$",
    "signer": "^[0-9a-f]{32}$",
}
"""Of members whose form a consumer may rely on."""
_OF_EARLIER_VERSIONS = frozenset({"milliseconds"})
_ALWAYS = {"head": ("hash", "signature")}


def kinds() -> tuple[str, ...]:
    """The kinds of records, sorted."""
    return tuple(sorted(record_schema()["discriminator"]["mapping"]))


def record_schema(kind: str | None = None) -> dict[str, Any]:
    """The schema of all records, or of those of one kind. Raises `UnknownName`."""
    (schema,), definitions = msgspec.json.schema_components([Record], ref_template="#/$defs/{name}")
    mapping: dict[str, str] = schema["discriminator"]["mapping"]
    for name, definition in definitions.items():
        of_kind = next((one for one, ref in mapping.items() if ref.endswith(f"/{name}")), None)
        definitions[name] = _narrowed(definition, of_kind)
    if kind is not None:
        if kind not in mapping:
            raise UnknownName("kind of record", kind, f"there are {', '.join(sorted(mapping))}")
        schema = {"$ref": mapping[kind]}
        definitions = _reachable(mapping[kind].rpartition("/")[2], definitions)
    return {
        "$schema": DIALECT,
        "$id": SCHEMA_ID if kind is None else f"{SCHEMA_ID}:{kind}",
        "title": "A record of the audit log of Cachegate" if kind is None else f"A record of the kind {kind}",
        **schema,
        "$defs": dict(sorted(definitions.items())),
    }


def _narrowed(definition: dict[str, Any], kind: str | None) -> dict[str, Any]:
    """A definition as this version writes it: what is left out instead of null, and in which form."""
    properties = {
        name: _property(name, one, is_of_record=kind is not None)
        for name, one in definition["properties"].items()
        if name not in _OF_EARLIER_VERSIONS
    }
    required: Iterable[str] = definition["required"]
    if kind is not None:
        properties["schema"] = {"const": SCHEMA_VERSION}
        required = [*required, *_ALWAYS.get(kind, ("hash",))]
    if "microseconds" in properties:
        required = [*required, "microseconds"]
    return {
        **{name: one for name, one in definition.items() if name != "title"},
        "properties": dict(sorted(properties.items())),
        "required": sorted(required),
    }


def _property(name: str, schema: dict[str, Any], *, is_of_record: bool) -> dict[str, Any]:
    """A member; the id of a part is not that of a record."""
    given = [one for one in schema.get("anyOf", [schema]) if one != {"type": "null"}]
    narrowed = dict(given[0]) if len(given) == 1 else {"anyOf": given}
    narrowed.pop("default", None)
    if narrowed.get("type") == "integer":
        narrowed |= {"minimum": 0, "maximum": MAX_INTEGER}
    if narrowed.get("type") == "string" and name in _PATTERNS and (is_of_record or name != "id"):
        narrowed["pattern"] = _PATTERNS[name]
    if narrowed.get("additionalProperties") == {"type": "integer"}:
        narrowed["additionalProperties"] = {"type": "integer", "minimum": 1, "maximum": MAX_INTEGER}
    return narrowed


def _reachable(name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A definition and those that it refers to."""
    found: dict[str, Any] = {}
    names = [name]
    while names:
        one = names.pop()
        found[one] = definitions[one]
        names += [
            inner["$ref"].rpartition("/")[2]
            for inner in definitions[one]["properties"].values()
            if "$ref" in inner and inner["$ref"].rpartition("/")[2] not in found
        ]
    return found
