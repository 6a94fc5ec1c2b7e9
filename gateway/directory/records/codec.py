"""Converts facts to records and back.

A record is one row of `layout.py`, and a fact is a value of `gateway.model.facts`; only this module
converts between them. A record repeats the name it is stored under and is refused under any other name: a
record that was moved, or a reply that reached the wrong reader, is never used for another subject. A key
repeats a part of its digest.

Decoding is strict. A row that is not exactly of its kind, a name that does not parse, or a time that is not
finite raises `UnreadableRecordError`, which the caller turns into a denial and a report (I1). NaN matters
most: a key that expires at NaN would never expire.

No record holds a secret: no field is a key, a pepper or a signature. Non-goals: what the facts mean, and the
policy set, which is two records (`policies.py`).
"""

from __future__ import annotations

import ipaddress
from sys import intern
from typing import TYPE_CHECKING

import msgspec

from gateway.directory.records import names
from gateway.directory.records.layout import (
    CHECK_BYTES,
    SCOPE_BITS,
    AliasRow,
    GrantRow,
    GrantsRow,
    KeyRow,
    RuleRow,
    TenantRow,
    UnreadableRecordError,
    decode_row,
    encode_row,
    verify_times,
    verify_written_for,
)
from gateway.model.access import Action
from gateway.model.facts import (
    MAX_DEGRADED_SECONDS,
    Alias,
    Grant,
    Grants,
    Key,
    KeyKind,
    ModelRule,
    Tenant,
)
from gateway.model.names import (
    parse_group_name,
    parse_key_id,
    parse_model_id,
    parse_package_id,
    parse_pattern,
    parse_tenant_id,
)

if TYPE_CHECKING:
    from gateway.model.names import ModelId, Pattern, TenantId

GRANTABLE = frozenset({Action.DISCOVER.value, Action.READ.value, Action.INFER.value})

_ACTION_SETS: dict[frozenset[str], frozenset[str]] = {}
"""The seven possible sets of actions, each stored once, so that thousands of grants share them."""

_KEYS = msgspec.msgpack.Decoder(KeyRow)
_TENANTS = msgspec.msgpack.Decoder(TenantRow)
_GRANTS = msgspec.msgpack.Decoder(GrantsRow)
_RULES = msgspec.msgpack.Decoder(RuleRow)
_ALIASES = msgspec.msgpack.Decoder(AliasRow)


def encode_key(key: Key, digest: bytes) -> bytes:
    """Encode a key, to be stored under this digest."""
    return encode_row(
        KeyRow(
            layout=1,
            generation=key.generation,
            source=key.source,
            key_id=names.short_key_id(key.key_id).decode(),
            tenant=key.tenant,
            name=key.name,
            scopes=sum(SCOPE_BITS[scope] for scope in key.scopes),
            networks=list(key.networks),
            created_at=key.created_at,
            not_before=key.not_before,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            pepper_id=key.pepper_id,
            digest_check=digest[:CHECK_BYTES],
        )
    )


def decode_key(raw: bytes, digest: bytes) -> Key:
    """Decode the record stored under this digest."""
    row = decode_row(_KEYS, raw)
    verify_written_for(row.digest_check, digest[:CHECK_BYTES])
    verify_times(row.created_at, row.not_before, row.expires_at, row.revoked_at)
    try:
        for network in row.networks:
            ipaddress.ip_network(network)
        return Key(
            key_id=parse_key_id(names.long_key_id(row.key_id.encode())),
            kind=KeyKind.ADMIN if row.tenant is None else KeyKind.TENANT,
            tenant=None if row.tenant is None else parse_tenant_id(row.tenant),
            name=row.name,
            scopes=frozenset(scope for scope, bit in SCOPE_BITS.items() if row.scopes & bit),
            networks=tuple(row.networks),
            created_at=row.created_at,
            not_before=row.not_before,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
            pepper_id=row.pepper_id,
            generation=row.generation,
            source=row.source,
        )
    except ValueError as error:
        raise UnreadableRecordError("a key record holds a name or network that does not parse") from error


def encode_tenant(tenant: Tenant) -> bytes:
    """Encode a tenant."""
    return encode_row(
        TenantRow(
            layout=1,
            generation=tenant.generation,
            source=tenant.source,
            tenant=tenant.tenant_id,
            name=tenant.name,
            is_suspended=tenant.is_suspended,
            created_at=tenant.created_at,
            degraded_seconds=tenant.degraded_seconds,
        )
    )


def decode_tenant(raw: bytes, tenant_id: TenantId) -> Tenant:
    """Decode the record stored under this tenant's name."""
    row = decode_row(_TENANTS, raw)
    verify_written_for(row.tenant, tenant_id)
    verify_times(row.created_at)
    if not 0 <= row.degraded_seconds <= MAX_DEGRADED_SECONDS:
        raise UnreadableRecordError("a degraded time out of bounds")
    return Tenant(
        tenant_id=tenant_id,
        name=row.name,
        is_suspended=row.is_suspended,
        created_at=row.created_at,
        degraded_seconds=row.degraded_seconds,
        generation=row.generation,
        source=row.source,
    )


def encode_grants(grants: Grants) -> bytes:
    """Encode all grants of a tenant."""
    rows = [
        GrantRow(
            grant_id=grant.grant_id,
            actions=sorted(grant.actions),
            models=list(grant.models),
            groups=list(grant.groups),
            packages=list(grant.packages),
            source=grant.source,
        )
        for grant in grants.grants
    ]
    return encode_row(GrantsRow(layout=1, generation=grants.generation, tenant=grants.tenant_id, grants=rows))


def decode_grants(raw: bytes, tenant_id: TenantId) -> Grants:
    """Decode the record stored under this tenant's name."""
    row = decode_row(_GRANTS, raw)
    verify_written_for(row.tenant, tenant_id)
    return Grants(
        tenant_id=tenant_id,
        grants=tuple(_grant(grant) for grant in row.grants),
        generation=row.generation,
    )


def _grant(row: GrantRow) -> Grant:
    actions = frozenset(row.actions)
    if not actions or not actions <= GRANTABLE:
        raise UnreadableRecordError("a grant names no action, or one that nothing can be granted for")
    actions = _ACTION_SETS.setdefault(actions, actions)
    try:
        return Grant(
            grant_id=row.grant_id,
            actions=actions,
            models=tuple(parse_pattern(pattern) for pattern in row.models),
            groups=tuple(parse_group_name(group) for group in row.groups),
            packages=tuple(parse_package_id(package) for package in row.packages),
            source=intern(row.source),
        )
    except ValueError as error:
        raise UnreadableRecordError("a grant holds a name that does not parse") from error


def encode_rule(rule: ModelRule) -> bytes:
    """Encode a pattern's rule."""
    return encode_row(
        RuleRow(
            layout=1,
            generation=rule.generation,
            source=rule.source,
            pattern=rule.pattern,
            owner=rule.owner,
            visibility=rule.visibility,
            groups=list(rule.groups),
        )
    )


def decode_rule(raw: bytes, pattern: Pattern) -> ModelRule:
    """Decode the record stored under this pattern's name."""
    row = decode_row(_RULES, raw)
    verify_written_for(row.pattern, pattern)
    try:
        return ModelRule(
            pattern=pattern,
            owner=None if row.owner is None else parse_tenant_id(row.owner),
            visibility=row.visibility,
            groups=tuple(parse_group_name(group) for group in row.groups),
            generation=row.generation,
            source=row.source,
        )
    except ValueError as error:
        raise UnreadableRecordError("a model rule holds a name that does not parse") from error


def encode_alias(alias: Alias) -> bytes:
    """Encode an alias."""
    return encode_row(
        AliasRow(
            layout=1,
            generation=alias.generation,
            source=alias.source,
            alias=alias.alias,
            canonical=alias.canonical,
        )
    )


def decode_alias(raw: bytes, alias: ModelId) -> Alias:
    """Decode the record stored under this alias's name."""
    row = decode_row(_ALIASES, raw)
    verify_written_for(row.alias, alias)
    try:
        canonical = parse_model_id(row.canonical)
    except ValueError as error:
        raise UnreadableRecordError("an alias points to what is no model id") from error
    return Alias(alias=alias, canonical=canonical, generation=row.generation, source=row.source)
