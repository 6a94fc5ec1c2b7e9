"""Redis names: the key of each kind of fact, and of the indexes that list them.

All names share one hash tag, so that they are in one Cluster slot and every change can be one transaction.
All fact records, and nothing else, begin with `FACTS`: a worker that tracks this prefix is notified of no
index and no usage record.

Names are injective: two things never share one. Each kind has its own letter, followed by a single validated
name or a digest, so nothing has to be escaped. Raw client input is never part of a name; a key is found by
its keyed hash.

Non-goals: the contents of records (`codec.py`), and the global generation, which the store owns.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model.names import BindingId, FileHandle, KeyId, Md5, ModelId, PackageId, Pattern, TenantId

FACTS = b"{cachegate}:f:"

TENANTS = b"{cachegate}:i:tenants"
PATTERNS = b"{cachegate}:i:patterns"
ALIASES = b"{cachegate}:i:aliases"
ADMIN_KEYS = b"{cachegate}:i:admin-keys"
QUARANTINED = b"{cachegate}:i:quarantined"
DEGRADED = b"{cachegate}:i:degraded"
"""A hash: per tenant, the longest former degraded period, and the generation at which it ended."""

ISSUERS = b"{cachegate}:i:issuers"
"""A set of the digests of outside issuers."""

BOUND_ISSUERS = b"{cachegate}:i:bound-issuers"
"""A set of the digests of outside issuers that have bindings, also where their document is gone."""

PEPPERS = b"{cachegate}:i:pepper-fingerprints"
"""A set of `id:fingerprint`, so that all can be read at once. Neither is the pepper."""

SIGNING_KEYS = b"{cachegate}:i:signing-keys"
"""A set of `kid:seconds`: which key was chosen to sign access tokens, and when. No key is in Redis."""

REMOVALS = b"{cachegate}:i:removals"
"""A set of the ids of removals of tenants."""

REMOVED_TENANTS = b"{cachegate}:i:removed-tenants"
"""A set of the names that removed tenants had: their keys stay readable."""

POLICY = FACTS + b"policy"

_KEYS = FACTS + b"k:"
_BINDINGS = FACTS + b"n:"

DIGEST_BYTES = 32  # HMAC-SHA-256 and SHA-256 alike

_KEY_ID_PREFIX = "key_"
# Two base62 characters make 3844 buckets: a million key ids are 260 fields each, well below the 512 up to
# which Redis keeps a hash as one compact listpack (about 50 bytes a field instead of 110).
_BUCKET_CHARACTERS = 2


def key_fact(digest: bytes) -> bytes:
    """The record of a key, by its keyed hash."""
    return _KEYS + _digest_text(digest)


def is_key_fact(name: bytes) -> bool:
    """Whether this is the name of a key's record."""
    return name.startswith(_KEYS)


def digest_of(name: bytes) -> bytes:
    """The inverse of `key_fact`."""
    return urlsafe_b64decode(name.removeprefix(_KEYS) + b"=")


def issuer_fact(digest: bytes) -> bytes:
    """The record of an outside issuer, by the digest of its `iss`."""
    return FACTS + b"i:" + _digest_text(digest)


def key_set_fact(digest: bytes) -> bytes:
    """The record of the keys that an outside issuer published, by the same digest."""
    return FACTS + b"j:" + _digest_text(digest)


def binding_fact(digest: bytes) -> bytes:
    """The record of a binding, by the digest of issuer and subject."""
    return _BINDINGS + _digest_text(digest)


def is_binding_fact(name: bytes) -> bool:
    """Whether this is the name of a binding's record."""
    return name.startswith(_BINDINGS)


def binding_digest_of(name: bytes) -> bytes:
    """The inverse of `binding_fact`."""
    return urlsafe_b64decode(name.removeprefix(_BINDINGS) + b"=")


def issuer_bindings(digest: bytes) -> bytes:
    """The set of the digests of an issuer's bindings."""
    return b"{cachegate}:i:bindings:" + _digest_text(digest)


def binding_digest(binding_id: BindingId) -> tuple[bytes, bytes]:
    """The hash and field that hold the digest of the binding with this id."""
    return b"{cachegate}:i:binding-ids", binding_id.encode()


def asking_for_keys(digest: bytes) -> bytes:
    """The lock of the process that fetches an issuer's keys; not a fact."""
    return b"{cachegate}:jwks:" + _digest_text(digest)


def failed_for_keys(digest: bytes) -> bytes:
    """The mark that a fetch of keys failed a moment ago, by a digest of issuer and place; not a fact."""
    return b"{cachegate}:jwks-failed:" + _digest_text(digest)


def tenant_fact(tenant: TenantId) -> bytes:
    """The record of a tenant."""
    return FACTS + b"t:" + tenant.encode()


def grants_fact(tenant: TenantId) -> bytes:
    """The record of all grants of a tenant."""
    return FACTS + b"g:" + tenant.encode()


def rule_fact(pattern: Pattern) -> bytes:
    """The record of a pattern's rule; exact ids and prefixes have separate namespaces."""
    stem = pattern.removesuffix("/*")
    return FACTS + (b"m:" if stem == pattern else b"p:") + stem.encode()


def alias_fact(alias: ModelId) -> bytes:
    """The record of an alias."""
    return FACTS + b"a:" + alias.encode()


def pin_fact(md5: Md5) -> bytes:
    """The record of a blob's pin."""
    return FACTS + b"b:" + md5.encode()


def origin_fact(model: ModelId, package: PackageId, handle: FileHandle) -> bytes:
    """The record of whose URL was handed out for a file without a digest."""
    return FACTS + b"u:" + _digest_text(sha256(f"{model}\0{package}\0{handle}".encode()).digest())


def attestation_fact(model: ModelId) -> bytes:
    """The record of the digests that the provider, or an operator, attested for this model."""
    return FACTS + b"d:" + model.encode()


def sealed_url(digest: bytes) -> bytes:
    """The sealed URL of a provider, by a keyed hash of what it is for; not a fact."""
    return b"{cachegate}:sealed:" + _digest_text(digest)


def policy_text(text_digest: bytes) -> bytes:
    """The policy texts, by the SHA-256 of their record: the content can be verified and never changes."""
    return FACTS + b"x:" + _digest_text(text_digest)


def ruling_fact(key_id: KeyId, model: ModelId | None) -> bytes:
    """The platform's ruling on a key and a model, or without a model on the key. Key ids have one length."""
    return FACTS + (b"s:" if model is None else b"r:") + _about(key_id, model)


def links_fact(key_id: KeyId, model: ModelId) -> bytes:
    """The record that URLs for this key and model were minted under an allow."""
    return FACTS + b"l:" + _about(key_id, model)


def ending_fact(about: KeyId | ModelId | None, *, is_key: bool = False) -> bytes:
    """The record that invalidates rulings asked before it: about a key, a model, or everything."""
    if about is None:
        return FACTS + b"e:"
    return FACTS + (b"ek:" if is_key else b"em:") + about.encode()


def ruling_facts(key_id: KeyId, model: ModelId | None) -> list[bytes]:
    """The records that the platform's answer about a key and a model may change."""
    about = [ruling_fact(key_id, None), ending_fact(key_id, is_key=True)]
    return about if model is None else [*about, ruling_fact(key_id, model), links_fact(key_id, model)]


def asking_lock(key_id: KeyId, model: ModelId | None) -> bytes:
    """The lock of the process that asks the platform about this key and model; not a fact."""
    return b"{cachegate}:ask:" + _about(key_id, model)


def removal(removal_id: str) -> bytes:
    """The head of a tenant's removal; not a fact."""
    return b"{cachegate}:o:" + removal_id.encode()


def removal_entry(removal_id: str, number: int) -> bytes:
    """An entry of a removal's journal; not a fact."""
    return b"{cachegate}:o:%b:%d" % (removal_id.encode(), number)


def tenant_keys(tenant: TenantId) -> bytes:
    """The set of a tenant's keys; its members are made by `short_key_id`."""
    return b"{cachegate}:i:keys:" + tenant.encode()


def key_set(tenant: TenantId | None) -> bytes:
    """The set in which a key is listed: its tenant's, or the admin keys'."""
    return ADMIN_KEYS if tenant is None else tenant_keys(tenant)


def key_digest(key_id: KeyId) -> tuple[bytes, bytes]:
    """The hash and field that hold the digest of the key with this id."""
    return b"{cachegate}:i:id:" + _bucket(key_id), short_key_id(key_id)


def last_use(key_id: KeyId) -> tuple[bytes, bytes]:
    """The hash and field of a key's last use. It may lag and decides nothing."""
    return b"{cachegate}:u:" + _bucket(key_id), short_key_id(key_id)


def networks_of(key_id: KeyId) -> tuple[bytes, bytes]:
    """The hash and field of the networks that a key was used from. They decide nothing."""
    return b"{cachegate}:n:" + _bucket(key_id), short_key_id(key_id)


def last_network(key_id: KeyId) -> tuple[bytes, bytes]:
    """The hash and field of the network that a key was last used from. It decides nothing."""
    return b"{cachegate}:w:" + _bucket(key_id), short_key_id(key_id)


def credential_mark(mark: bytes) -> tuple[bytes, bytes]:
    """The hash and field that hold the key of a mark, a keyed hash of the engine's hash of the key.

    It is not a fact: it identifies a key for people and decides nothing.
    """
    text = _digest_text(mark)
    return b"{cachegate}:e:" + text[:_BUCKET_CHARACTERS], text[_BUCKET_CHARACTERS:]


def short_key_id(key_id: KeyId) -> bytes:
    """A key id without the common prefix: four bytes less in each of two indexes of a million keys."""
    return key_id.removeprefix(_KEY_ID_PREFIX).encode()


def long_key_id(raw_short: bytes) -> str:
    """The inverse of `short_key_id`; the caller must parse it, since an index is not trusted."""
    return _KEY_ID_PREFIX + raw_short.decode("ascii", "replace")


def _about(key_id: KeyId, model: ModelId | None) -> bytes:
    return short_key_id(key_id) + b":" + (b"" if model is None else model.encode())


def _bucket(key_id: KeyId) -> bytes:
    return short_key_id(key_id)[:_BUCKET_CHARACTERS]


def _digest_text(digest: bytes) -> bytes:
    if len(digest) != DIGEST_BYTES:
        raise ValueError("a digest is 32 bytes long")  # a defect of ours: no client input gets here
    return urlsafe_b64encode(digest).rstrip(b"=")
