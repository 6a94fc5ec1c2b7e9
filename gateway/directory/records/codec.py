"""Converts facts to records and back.

A record is the msgpack array of a fact (`model/records.py`). Three kinds are packed: keys, pins and
attestations have digests as raw bytes and scopes as bits. Where a record names a tenant that it belongs to,
the id of that tenant's record follows the name, after a blank, which no name holds. A tenant has four
layouts: hosts of images stand in the second, what its workflows may do in the third, and the id of the record
in the fourth; grants and the rule of a pattern have a second one, for times, and a key has one for what
became of it. A record repeats the name it is stored under and is refused under any other name: a record that
was moved, or a reply that reached the wrong reader, is never used for another subject. A key repeats a part
of its digest.

Decoding is strict. A record with a wrong kind, an unknown layout, a missing or surplus field, a field of
another type, a name that does not parse, or a time that is not finite raises `UnreadableRecordError`, which
the caller turns into a denial and a report (I1). A ruling of the platform that does not parse is none: the
platform is asked again, and nothing is allowed before it has answered.

No record holds a secret: no field is a key, a pepper or a signature. Non-goals: what the facts mean, and the
policy set, which is two records (`policies.py`).
"""

from __future__ import annotations

import ipaddress
import re
from sys import intern
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import msgspec
from msgspec.structs import force_setattr

from gateway.directory.records import names
from gateway.model.access import ALLOWABLE, GRANTABLE
from gateway.model.facts import (
    MAX_ATTESTED,
    MAX_DEGRADED_SECONDS,
    UNCHANGED,
    Alias,
    Attestation,
    Grant,
    Grants,
    Key,
    KeyLife,
    ModelRule,
    Origin,
    Role,
    Scope,
    Tenant,
    Visibility,
)
from gateway.model.image_hosts import MAX_IMAGE_HOSTS, parse_image_host
from gateway.model.issuers import (
    BINDING_SCOPES,
    MAX_BINDINGS,
    MAX_KEY_SET_BYTES,
    MAX_LEEWAY_SECONDS,
    MAX_LIFETIME_SECONDS,
    WILDCARD,
    Binding,
    Issuer,
    IssuerKeySet,
    MappingRule,
    issuer_digest,
)
from gateway.model.names import (
    parse_binding_id,
    parse_group_name,
    parse_key_id,
    parse_model_id,
    parse_package_id,
    parse_pattern,
    parse_tenant_id,
)
from gateway.model.pins import Pin
from gateway.model.rulings import EndMark, Ruling
from gateway.model.tenant_records import RECORD_CHARACTERS, RECORD_PREFIX, parse_tenant_record_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId, Pattern, TenantId
    from gateway.model.records import PolicyTexts, Record

FactT = TypeVar("FactT", bound="Record | PolicyTexts")

# One bit per scope instead of up to three names in each of a million key records; no bit gets a new meaning.
SCOPE_BITS = {
    Scope.DISCOVER: 1,
    Scope.READ: 2,
    Scope.INFER: 4,
    Scope.AUDIT_READ: 8,
    Scope.KEYS_MANAGE: 16,
    Scope.TOKENS_INTROSPECT: 32,
    Scope.DECISIONS_ASK: 64,
}
ROLE_BITS = {Role.OPERATOR: 128, Role.AUDITOR: 256, Role.TENANT_ADMIN: 512}
"""One of these beside the scopes, or none."""
_ALL_SCOPE_BITS = sum(SCOPE_BITS.values())
_ALL_BITS = _ALL_SCOPE_BITS | sum(ROLE_BITS.values())

CHECK_BYTES = 8  # of the digest that a key is stored under: two keys share them once in 2**64 pairs
_MD5_BYTES, _SHA256_BYTES = 16, 32

LAYOUT_WITH_IMAGE_HOSTS = 2
"""Of a tenant. Without hosts, layout 1 is written: versions that do not know layout 2 read these tenants."""

LAYOUT_WITH_ALLOWS = 3
"""Of a tenant whose workflows may do something; it has room for hosts as well."""

LAYOUT_WITH_RECORD_ID = 4
"""Of a tenant whose record has an id; it has room for the rest as well."""

LAYOUT_WITH_TIMES = 2
"""Of grants of which one begins or ends, and of the rule of a pattern whose publication does."""

LAYOUT_WITH_LIFE = 2
"""Of a key that was disabled, revoked for a reason or rotated, or is a decoy. Any other is of layout 1."""

# The places of the layout and of packed fields in the row.
_LAYOUT = 1
_KEY_ID, _SCOPES = 4, 7  # without the id of the tenant's record, which is stored with the tenant
_MD5, _SHA256 = 4, 5

_ACTION_SETS: dict[frozenset[str], frozenset[str]] = {}
"""The seven possible sets of actions, each stored once, so that thousands of grants share them."""

_TIMES = 2  # not-before and expiry, the last fields of a grant and of a rule

_JOINED = re.compile(rf"[^ ]+ [0-9A-Za-z]{{{RECORD_CHARACTERS}}}")
"""A tenant with the id of its record. What is none is taken for a name, and does not parse."""

_TENANT_RECORDS = {
    kind: 1 + kind.__struct_fields__.index(field)  # after the number of the kind
    for kind, field in (
        (Key, "tenant_record"),
        (Binding, "tenant_record"),
        (Grants, "tenant_record"),
        (ModelRule, "owner_record"),
    )
}
"""The place in the row of the id of the tenant's record; the tenant's name is before it."""

_encoder = msgspec.msgpack.Encoder(order="deterministic")
_rows = msgspec.msgpack.Decoder(list[Any])


class UnreadableRecordError(ValueError):
    """A record is not what its name says. Handled within the packages that read records."""


def encode(fact: Record | PolicyTexts) -> bytes:
    """Encode a fact; a key needs its digest as well (`encode_key`)."""
    match fact:
        case Key():
            raise TypeError("a key is encoded together with its digest")
        case Pin():
            *row, quarantine = msgspec.to_builtins(fact)
            row[_MD5], row[_SHA256] = bytes.fromhex(fact.md5), fact.sha256 and bytes.fromhex(fact.sha256)
            cause, since, found = quarantine or (None, None, None)
            return _encoder.encode([*row, cause, since, found and bytes.fromhex(found)])
        case Attestation():
            *row, digests = msgspec.to_builtins(fact, order="deterministic")
            return _encoder.encode([*row, b"".join(map(bytes.fromhex, digests))])
        case Grants() | ModelRule() | Binding():
            return _encoder.encode(_joined_row(fact))
        case Tenant():
            *row, image_hosts, allows, record_id, removal = msgspec.to_builtins(fact)
            if record_id is not None or removal is not None:
                row[_LAYOUT] = LAYOUT_WITH_RECORD_ID
                row += [image_hosts, allows, record_id, removal]
            elif allows:
                row[_LAYOUT] = LAYOUT_WITH_ALLOWS
                row += [image_hosts, allows]
            elif image_hosts:
                row[_LAYOUT] = LAYOUT_WITH_IMAGE_HOSTS
                row.append(image_hosts)
            return _encoder.encode(row)
    return _encoder.encode(fact)


def decode(kind: type[FactT], raw: bytes, **names_of_fact: object) -> FactT:
    """Decode a record of a kind that is not packed, found under these names."""
    return _fact(kind, _row(kind, raw), names_of_fact)


def encode_key(key: Key, digest: bytes) -> bytes:
    """Encode a key, to be stored under this digest."""
    *row, _ = _joined_row(key)
    if key.life == UNCHANGED:
        row.pop()
    else:
        row[_LAYOUT] = LAYOUT_WITH_LIFE
    row[_KEY_ID] = names.short_key_id(key.key_id).decode()
    row[_SCOPES] = sum(SCOPE_BITS[scope] for scope in key.scopes)
    row[_SCOPES] |= 0 if key.set_role is None else ROLE_BITS[key.set_role]
    return _encoder.encode([*row, digest[:CHECK_BYTES]])


def decode_key(raw: bytes, digest: bytes) -> Key:
    """Decode the record stored under this digest."""
    *row, check = _row(Key, raw, packed=None) or [None]
    has_life = len(row) > _LAYOUT and row[_LAYOUT] == LAYOUT_WITH_LIFE
    if has_life:
        row[_LAYOUT] = 1
        if not isinstance(row[-1], list) or len(row[-1]) != len(KeyLife.__struct_fields__):
            _refuse()
    else:
        row.append([])
    # One is stored with the tenant, and the role among the bits of the scopes.
    if len(row) != len(Key.__struct_fields__) - 1:
        _refuse()
    if check != digest[:CHECK_BYTES]:
        _refuse("the record was written for another name")
    short_id, bits = row[_KEY_ID], row[_SCOPES]
    if not isinstance(short_id, str) or type(bits) is not int or not 0 <= bits <= _ALL_BITS:
        _refuse()
    row[_KEY_ID] = names.long_key_id(short_id.encode())
    row[_SCOPES] = [scope for scope, bit in SCOPE_BITS.items() if bits & bit]
    roles = [role for role, bit in ROLE_BITS.items() if bits & bit]
    if len(roles) > 1:
        _refuse("a key has one role")
    row.append(roles[0] if roles else None)
    _part_row(Key, row)
    key = _fact(Key, row, {})
    if not has_life:
        force_setattr(key, "life", UNCHANGED)  # one for all of them
    elif key.life == UNCHANGED:
        _refuse("a key's record has a layout for what it does not have")
    why = "a key record holds a name or network that does not parse"
    other_ids = [one for one in (key.life.replaces, key.life.replaced_by) if one is not None]
    _verify(why, parse_key_id, [key.key_id, *other_ids])
    _verify(why, parse_tenant_id, [] if key.tenant is None else [key.tenant])
    _verify(why, ipaddress.ip_network, key.networks)
    return key


def decode_issuer(raw: bytes, digest: bytes) -> Issuer:
    """Decode the record stored under the digest of this issuer."""
    row = _row(Issuer, raw)
    issuer = _fact(Issuer, row, {})
    if issuer_digest(issuer.url) != digest:
        _refuse("the record was written for another name")
    if any(len(values) != len(MappingRule.__struct_fields__) for values in row[-1]):
        _refuse()
    if not (
        0 <= issuer.leeway_seconds <= MAX_LEEWAY_SECONDS
        and 0 < issuer.max_lifetime_seconds <= MAX_LIFETIME_SECONDS
        and issuer.max_bindings <= MAX_BINDINGS
        and issuer.algorithms
        and issuer.types
    ):
        _refuse("an issuer's record is out of bounds")
    for rule in issuer.rules:
        why = "an issuer's rule holds a name or network that does not parse"
        _verify(why, parse_tenant_id, [rule.tenant])
        _verify(why, ipaddress.ip_network, rule.networks)
        _verify(why, parse_pattern, [] if rule.only is None else [rule.only])
        if not rule.scopes or not rule.scopes <= BINDING_SCOPES:
            _refuse("an issuer's rule gives no scope, or one that no binding has")
        if any(not one.values or WILDCARD in one.values for one in rule.claims):
            _refuse("an issuer's rule names a claim and no value")
    return issuer


def decode_key_set(raw: bytes, digest: bytes) -> IssuerKeySet:
    """Decode the record stored under the digest of this issuer."""
    key_set = _fact(IssuerKeySet, _row(IssuerKeySet, raw), {})
    if issuer_digest(key_set.url) != digest or len(key_set.document) > MAX_KEY_SET_BYTES:
        _refuse("the record was written for another name, or is too large")
    return key_set


def decode_binding(raw: bytes, digest: bytes) -> Binding:
    """Decode the record stored under the digest of issuer and subject."""
    row = _row(Binding, raw, packed=-1)
    _part_row(Binding, row)
    binding = _fact(Binding, row, {})
    if binding.digest != digest:
        _refuse("the record was written for another name")
    why = "a binding's record holds a name that does not parse"
    _verify(why, parse_binding_id, [binding.binding_id])
    _verify(why, parse_tenant_id, [binding.tenant])
    return binding


def decode_tenant(raw: bytes, tenant_id: TenantId) -> Tenant:
    """Decode the record stored under this tenant's name."""
    row = _row(Tenant, raw, packed=None)
    layout = row[_LAYOUT] if len(row) > _LAYOUT and type(row[_LAYOUT]) is int else 0
    if layout in {LAYOUT_WITH_IMAGE_HOSTS, LAYOUT_WITH_ALLOWS, LAYOUT_WITH_RECORD_ID}:
        row[_LAYOUT] = 1
        if not row[-1] and (layout != LAYOUT_WITH_RECORD_ID or not row[-2]):
            _refuse("a tenant's record has a layout for what it does not have")
    if layout != LAYOUT_WITH_RECORD_ID:
        row += [[]] * (LAYOUT_WITH_ALLOWS - layout if layout else 2)
        row += [None, None]
    if len(row) != 1 + len(Tenant.__struct_fields__):
        _refuse()
    tenant = _fact(Tenant, row, {"tenant_id": tenant_id})
    if len(tenant.image_hosts) > MAX_IMAGE_HOSTS:
        _refuse("more hosts of images than a tenant can have")
    _verify(
        "a tenant's record has a host of images that does not parse", parse_image_host, tenant.image_hosts
    )
    if tenant.allows != tuple(sorted(set(tenant.allows) & set(ALLOWABLE))):
        _refuse("a tenant's record allows what is no action of a workflow, or out of order")
    _verify_record_id(tenant.record_id)
    if not 0 <= tenant.degraded_seconds <= MAX_DEGRADED_SECONDS:
        _refuse("a degraded time out of bounds")
    return tenant


def decode_grants(raw: bytes, tenant_id: TenantId) -> Grants:
    """Decode the record stored under this tenant's name."""
    row = _row(Grants, raw, packed=-1)
    has_times = _take_layout(row)
    _part_row(Grants, row)
    fields = len(Grant.__struct_fields__) - (0 if has_times else _TIMES)
    grants = _fact(Grants, row, {"tenant_id": tenant_id})
    if any(len(values) != fields for values in row[-1]):
        _refuse()
    if has_times != grants.has_times:
        _refuse("grants have a layout for times that they do not have")
    for grant in grants.grants:
        if not grant.actions or not grant.actions <= GRANTABLE:
            _refuse("a grant names no action, or one that nothing can be granted for")
        why = "a grant holds a name that does not parse"
        _verify(why, parse_pattern, grant.models)
        _verify(why, parse_group_name, grant.groups)
        _verify(why, parse_package_id, grant.packages)
        force_setattr(grant, "actions", _ACTION_SETS.setdefault(grant.actions, grant.actions))
        force_setattr(grant, "source", intern(grant.source))
    return grants


def decode_rule(raw: bytes, pattern: Pattern) -> ModelRule:
    """Decode the record stored under this pattern's name."""
    row = _row(ModelRule, raw, packed=None)
    has_times = _take_layout(row)
    if not has_times:
        row += [None] * _TIMES
    if len(row) != len(ModelRule.__struct_fields__):  # one is stored with the owner
        _refuse()
    _part_row(ModelRule, row)
    rule = _fact(ModelRule, row, {"pattern": pattern})
    if has_times != rule.has_times or (has_times and rule.visibility is not Visibility.PUBLIC):
        _refuse("a rule has a layout for times of a publication that it does not have")
    why = "a model rule holds a name that does not parse"
    _verify(why, parse_tenant_id, [] if rule.owner is None else [rule.owner])
    _verify(why, parse_group_name, rule.groups)
    return rule


def decode_alias(raw: bytes, alias: ModelId) -> Alias:
    """Decode the record stored under this alias's name."""
    found = decode(Alias, raw, alias=alias)
    _verify("an alias points to what is no model id", parse_model_id, [found.canonical])
    return found


def decode_pin(raw: bytes, md5: Md5) -> Pin:
    """Decode the record stored under this blob's name: without it, a blob's content is unknown."""
    *row, cause, since, found = _row(Pin, raw, packed=2)
    row[_MD5] = _hex(row[_MD5], _MD5_BYTES)
    row[_SHA256] = None if row[_SHA256] is None else _hex(row[_SHA256], _SHA256_BYTES)
    is_whole = (cause, since, found) == (None, None, None)
    row.append(None if is_whole else [cause, since, _hex(found, _SHA256_BYTES)])
    return _fact(Pin, row, {"md5": md5})


def decode_ruling(raw: bytes, key_id: KeyId, model: ModelId | None) -> Ruling:
    """Decode the ruling, standing or links record stored under the name of this key and model."""
    return decode(Ruling, raw, key_id=key_id, model=model)


def decode_ending(raw: bytes) -> int:
    """Decode an ending: rulings asked before this generation do not count."""
    return decode(EndMark, raw).generation


def decode_origin(raw: bytes, model: ModelId, package: PackageId, handle: FileHandle) -> Origin:
    """Decode the record stored under this file's name."""
    return decode(Origin, raw, model=model, package=package, handle=handle)


def decode_attestation(raw: bytes, model: ModelId) -> Attestation:
    """Decode the record stored under this model's name."""
    *row, digests = _row(Attestation, raw)
    if not isinstance(digests, bytes) or len(digests) > MAX_ATTESTED * _MD5_BYTES:
        _refuse()
    starts = range(0, len(digests), _MD5_BYTES)
    row.append([_hex(digests[start : start + _MD5_BYTES], _MD5_BYTES) for start in starts])
    return _fact(Attestation, row, {"model": model})


def _row(kind: type[msgspec.Struct], raw: bytes, *, packed: int | None = 0) -> list[Any]:
    """Return the array of a record, which has so many fields more than its class and its number.

    With None, the caller counts them.
    """
    try:
        row = _rows.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(cause=error)
    if packed is not None and len(row) != 1 + len(kind.__struct_fields__) + packed:
        _refuse()
    return row


def _fact(kind: type[FactT], row: list[Any], names_of_fact: dict[str, object]) -> FactT:
    try:
        fact = msgspec.convert(row, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        _refuse(cause=error)
    if any(getattr(fact, field) != name for field, name in names_of_fact.items()):
        _refuse("the record was written for another name")
    return fact


def _joined_row(fact: Key | Grants | ModelRule | Binding) -> list[Any]:
    """Return the row of a fact that belongs to a tenant: the tenant and its record's id are one text."""
    row: list[Any] = msgspec.to_builtins(fact, order="deterministic")
    place = _TENANT_RECORDS[type(fact)]
    record_id = row.pop(place)
    if record_id is not None:
        row[place - 1] = f"{row[place - 1]} {record_id.removeprefix(RECORD_PREFIX)}"
    if isinstance(fact, ModelRule):
        if fact.has_times:
            row[_LAYOUT] = LAYOUT_WITH_TIMES
        else:
            del row[-_TIMES:]
    elif isinstance(fact, Grants):
        if fact.has_times:
            row[_LAYOUT] = LAYOUT_WITH_TIMES
        else:
            row[-1] = [values[:-_TIMES] for values in row[-1]]
    return row


def _part_row(kind: type[Key | Binding | Grants | ModelRule], row: list[Any]) -> None:
    """The inverse: put the id of the tenant's record into a place of its own."""
    place = _TENANT_RECORDS[kind]
    if len(row) < place:
        _refuse()
    text, record_id = row[place - 1], None
    if isinstance(text, str) and _JOINED.fullmatch(text):
        row[place - 1], _, short = text.partition(" ")
        record_id = f"{RECORD_PREFIX}{short}"
    row.insert(place, record_id)


def _take_layout(row: list[Any]) -> bool:
    """Whether a row has the layout with times; the classes know the first layout only."""
    has_times = len(row) > _LAYOUT and type(row[_LAYOUT]) is int and row[_LAYOUT] == LAYOUT_WITH_TIMES
    if has_times:
        row[_LAYOUT] = 1
    return has_times


def _verify_record_id(record_id: str | None) -> None:
    why = "a record holds the id of a tenant's record that does not parse"
    _verify(why, parse_tenant_record_id, [] if record_id is None else [record_id])


def _verify(why: str, parse: Callable[[str], object], texts: Iterable[str]) -> None:
    try:
        for text in texts:
            parse(text)
    except ValueError as error:
        _refuse(why, error)


def _hex(value: object, length: int) -> str:
    """Return a digest in hex; an unreadable record if it has not so many bytes."""
    return value.hex() if isinstance(value, bytes) and len(value) == length else _refuse()


def _refuse(why: str = "not a record of this kind and layout", cause: Exception | None = None) -> NoReturn:
    raise UnreadableRecordError(why) from cause
