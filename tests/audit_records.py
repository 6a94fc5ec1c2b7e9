"""Audit records of every kind for properties: any that parses, whatever its texts are."""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec
from hypothesis import strategies as st

from gateway.audit import record as records
from gateway.audit.canonical import MAX_INTEGER
from gateway.audit.record import SCHEMA_VERSION, Record, encode, parse_line, seal
from gateway.audit.timeline import time_text

KINDS: dict[str, type] = {one.__struct_config__.tag: one for one in typing.get_args(Record)}
_TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
_TIMES = st.floats(0, 4e9).map(time_text)
_DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
_NAMED: dict[str, st.SearchStrategy[Any]] = {
    "schema": st.just(SCHEMA_VERSION),
    "time": _TIMES,
    "hash": st.just(""),
    "milliseconds": st.none(),
    "decision": st.sampled_from(["allow", "deny"]),
    "client": st.ip_addresses().map(str) | st.sampled_from(["unix", "fe80::1%eth0", ""]) | _TEXTS,
    "source": st.ip_addresses().map(str) | _TEXTS,
    "method": st.sampled_from(["GET", "HEAD", "PROPFIND"]) | _TEXTS,
    "action": st.sampled_from(["read", "keys.create", "grants.add", "grants.remove", "policy.apply", "x"])
    | _TEXTS,
    "principal": st.sampled_from(["tenant", "admin", "link", "token", "binding"]),
    "reason": st.sampled_from(["permitted", "not-permitted", "decoy-key", "no-credential"]) | _TEXTS,
    "md5": st.binary(min_size=16, max_size=16).map(bytes.hex) | _TEXTS,
    "found": _DIGESTS | _TEXTS,
}


def records_of(kind: str) -> st.SearchStrategy[tuple[Record, bytes]]:
    """Records of this kind with their lines, sealed as they are written."""
    return _built(KINDS[kind]).map(_sealed)


def _sealed(unsealed: Any) -> tuple[Record, bytes]:
    line, _ = seal(encode(unsealed))
    return parse_line(line), line


def _built(struct: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(struct, vars(records))
    fields = msgspec.structs.fields(struct)
    return st.builds(struct, **{field.name: _of_field(field, hints[field.name]) for field in fields})


def _of_field(field: msgspec.structs.FieldInfo, hint: Any) -> st.SearchStrategy[Any]:
    named = _NAMED.get(field.name)
    if named is None:
        return _of_type(hint)
    return named if field.required or field.name in {"hash", "milliseconds"} else st.none() | named


def _of_type(hint: Any) -> st.SearchStrategy[Any]:
    origin, of = typing.get_origin(hint), typing.get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        return st.one_of(*map(_of_type, of))
    if origin is tuple:
        return st.lists(_of_type(of[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(_TEXTS, st.integers(1, 99), max_size=3)
    if hint is type(None):
        return st.none()
    if hint is str:
        return _TEXTS
    if hint is int:
        return st.integers(0, MAX_INTEGER)
    return _built(hint)
