"""Make new API keys: issue a token of our own, import a key by its hash, or adopt a key of another system.

A `KeyOrder` describes the key that an operator asks for, and is valid once it exists. An order and a secret
give a `NewKey`: the record for the directory, the digest under which it is stored, and, for a token we
issued, the token, which is shown once and kept nowhere (I8).

Storing keys is the task of `directory/`; `key_state` says whether a stored key may be used now.
"""

from __future__ import annotations

import math
import re
import secrets
from enum import StrEnum
from hashlib import sha256
from ipaddress import IPv6Network, ip_network
from typing import TYPE_CHECKING

import msgspec

from gateway.identity.tokens import mint_token, parse_token, random_base62
from gateway.model.access import TOKEN_MARK, Credential
from gateway.model.errors import BadNameError, Refusal
from gateway.model.facts import DEFAULT_SCOPES, UNCHANGED, Key, KeyKind, KeyLife, Role, Scope
from gateway.model.hidden_fields import shown
from gateway.model.names import KeyId
from gateway.model.roles import DEFAULT_ROLE_SCOPES, KIND_OF_ROLE, ROLE_SCOPES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.identity.pepper import Peppers
    from gateway.model.names import TenantId

MAX_NAME_CHARACTERS = 100  # names are for people and are shown in lists
MAX_NETWORKS = 64  # each is checked at every request of the key
MIN_OPAQUE_CHARACTERS = 16  # a shorter key could be guessed online
MAX_OPAQUE_CHARACTERS = 4096  # no request can carry more
KEY_ID_CHARACTERS = 12
MAPPED_PREFIX_BITS = 96  # ::ffff:0:0/96: IPv4-mapped IPv6 addresses

_OPAQUE = re.compile(r"[\x21-\x2b\x2d-\x7e]+")  # what a credential header can carry: visible ASCII, no comma
_SHA256_HEX = re.compile(r"[0-9a-f]{64}")


class KeyState(StrEnum):
    """Whether a key may be used at a given time."""

    LIVE = "live"
    REVOKED = "revoked"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    DISABLED = "disabled"
    DECOY = "decoy"


class KeyOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The attributes of a new key. `now` is the time of the order; scopes None: the default of kind and role.

    `role` None: an admin key is an owner's, and a tenant's key administers nothing.
    """

    now: float
    kind: KeyKind
    tenant: TenantId | None
    name: str = ""
    role: Role | None = None
    scopes: frozenset[Scope] | None = None
    networks: tuple[str, ...] = ()
    not_before: float | None = None
    expires_at: float | None = None
    is_decoy: bool = False

    def __post_init__(self) -> None:
        """Refuse an order whose key could never be used, or could do too much."""
        if (self.kind is KeyKind.TENANT) != (self.tenant is not None):
            raise BadNameError("a tenant key names a tenant, an admin key names none")
        parse_name(self.name)
        if self.role is not None and KIND_OF_ROLE[self.role] is not self.kind:
            raise BadNameError("a tenant-admin is of a tenant; owners, operators and auditors are of none")
        if self.scopes is not None:
            _check_scopes(self.scopes, self.kind, self.role)
        if self.networks != parse_networks(self.networks):
            raise BadNameError("a key's networks are written as parse_networks returns them")
        for moment in (self.now, self.not_before, self.expires_at):
            if moment is not None and not math.isfinite(moment):
                raise BadNameError("a key's times are finite")
        if self.expires_at is not None and self.expires_at <= max(self.now, self.not_before or self.now):
            raise BadNameError("a key's expiry lies ahead of now and of its not-before")


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key to be stored under `digest`. `token` is set only when we issued it; show it once."""

    key: Key
    digest: bytes
    token: str | None = None

    def __repr__(self) -> str:
        return shown(self, hidden=("digest", "token"))


def issue_key(order: KeyOrder, *, environment: str, peppers: Peppers) -> NewKey:
    """A key with a token of our own."""
    token = mint_token(environment, secrets.choice)
    return _new_key(order, sha256(token.encode("ascii")).digest(), peppers, token)


def import_key(order: KeyOrder, *, sha256_hex: str, peppers: Peppers) -> NewKey:
    """A key of another system, of which only the SHA-256 is known."""
    return _new_key(order, bytes.fromhex(parse_sha256(sha256_hex)), peppers)


def parse_sha256(text: str) -> str:
    """The SHA-256 of a key, in hex. Raises `BadNameError`."""
    if not _SHA256_HEX.fullmatch(text):
        raise BadNameError("not a SHA-256: expected 64 lower-case hex digits")
    return text


def adopt_key(order: KeyOrder, *, raw_key: str, peppers: Peppers) -> NewKey:
    """A key of another system as it is, from standard input. No error message quotes it."""
    return _new_key(order, bytes.fromhex(sha256_of_adopted(raw_key)), peppers)


def sha256_of_adopted(raw_key: str) -> str:
    """The SHA-256 of a key of another system, in hex. Raises `BadNameError`, which does not quote it."""
    if not may_be_key(raw_key):
        raise BadNameError(
            f"not a key: expected {MIN_OPAQUE_CHARACTERS} to {MAX_OPAQUE_CHARACTERS} visible ASCII "
            "characters, without blanks or commas"
        )
    try:
        parse_token(raw_key)
    except Refusal as error:
        raise BadNameError("not a key: it starts with cg_, but its check digits do not agree") from error
    if Credential(raw_key).is_token:
        raise BadNameError(f"not a key: what starts with {TOKEN_MARK} is read as an access token")
    return sha256(raw_key.encode("ascii")).hexdigest()


def may_be_key(text: str) -> bool:
    """Whether a key, of whatever system, can look like that."""
    return MIN_OPAQUE_CHARACTERS <= len(text) <= MAX_OPAQUE_CHARACTERS and bool(_OPAQUE.fullmatch(text))


def key_state(key: Key, now: float) -> KeyState:
    """The state of the key at this time. Every bound fails closed, also for a clock that returns NaN."""
    if key.revoked_at is not None:
        return KeyState.REVOKED
    if key.life.is_decoy:
        return KeyState.DECOY
    if key.life.disabled_at is not None:
        return KeyState.DISABLED
    if not math.isfinite(now) or (key.not_before is not None and not key.not_before <= now):
        return KeyState.NOT_YET_VALID
    if key.expires_at is not None and not now < key.expires_at:
        return KeyState.EXPIRED
    return KeyState.LIVE


def parse_name(text: str) -> str:
    """A name for people. Raises `BadNameError`."""
    if len(text) > MAX_NAME_CHARACTERS or not text.isprintable():
        raise BadNameError(f"a key's name is at most {MAX_NAME_CHARACTERS} printable characters")
    return text


def default_scopes(kind: KeyKind, role: Role | None) -> frozenset[Scope]:
    """The scopes of a key that names none."""
    if role is None:
        return DEFAULT_SCOPES if kind is KeyKind.TENANT else DEFAULT_ROLE_SCOPES[Role.OWNER]
    return DEFAULT_ROLE_SCOPES[role]


def parse_scopes(texts: Iterable[str], kind: KeyKind, role: Role | None = None) -> frozenset[Scope]:
    """Parse scopes that a key of this kind and role may have. Raises `BadNameError`."""
    scopes = set()
    for text in texts:
        try:
            scopes.add(Scope(text))
        except ValueError as error:
            raise BadNameError(f"{text!r} is not a scope: expected {_listed(Scope)}") from error
    _check_scopes(frozenset(scopes), kind, role)
    return frozenset(scopes)


def parse_networks(texts: Iterable[str]) -> tuple[str, ...]:
    """Networks in CIDR notation or single addresses, normalised, sorted, each once."""
    networks = {_parse_network(text) for text in texts}
    if len(networks) > MAX_NETWORKS:
        raise BadNameError(f"a key is bound to at most {MAX_NETWORKS} networks")
    return tuple(sorted(networks))


def _parse_network(text: str) -> str:
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise BadNameError(
            f"{text!r} is not a network: expected CIDR such as 10.0.0.0/8 or 2001:db8::/32"
        ) from error
    try:
        ip_network(text)
    except ValueError as error:
        raise BadNameError(f"{text!r} has host bits set: the network is {network}") from error
    if isinstance(network, IPv6Network):
        if network.network_address.scope_id is not None:
            raise BadNameError(f"{text!r} names an interface, which means nothing to a caller elsewhere")
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= MAPPED_PREFIX_BITS:
            # Client addresses are converted to IPv4 before they are compared, so the network has to be too.
            return f"{mapped}/{network.prefixlen - MAPPED_PREFIX_BITS}"
    return str(network)


def _check_scopes(scopes: frozenset[Scope], kind: KeyKind, role: Role | None) -> None:
    if not scopes:
        raise BadNameError(f"a key has at least one scope: {_listed(Scope)}")
    if kind is KeyKind.ADMIN and role is None:
        role = Role.OWNER
    if role is not None and not scopes <= ROLE_SCOPES[role]:
        what = "an admin key" if role is Role.OWNER else f"a key of the role {role}"
        raise BadNameError(f"{what} reads no content; its scopes are {_listed(ROLE_SCOPES[role])}")


def _listed(scopes: Iterable[Scope]) -> str:
    return ", ".join(sorted(scopes))


def _new_key(order: KeyOrder, sha256_of_key: bytes, peppers: Peppers, token: str | None = None) -> NewKey:
    default = default_scopes(order.kind, order.role)
    key = Key(
        key_id=KeyId("key_" + random_base62(KEY_ID_CHARACTERS, secrets.choice)),
        tenant=order.tenant,
        name=order.name,
        scopes=default if order.scopes is None else order.scopes,
        networks=order.networks,
        created_at=order.now,
        not_before=order.not_before,
        expires_at=order.expires_at,
        pepper_id=peppers.current.id,
        life=KeyLife(is_decoy=True) if order.is_decoy else UNCHANGED,
        set_role=None if order.role is Role.OWNER else order.role,
    )
    return NewKey(key=key, digest=peppers.digest(sha256_of_key), token=token)
