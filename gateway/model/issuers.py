"""Outside issuers: whose tokens are accepted, which claims mean which tenant, and the bindings made of that.

A CI system or a cluster signs short-lived tokens about its own workloads. A token has no key of ours, so what
an operator lists and revokes is a *binding*: the fact that this subject of this issuer acts for this tenant.

* An `Issuer` is a document of the policy folder: where its keys are, what its tokens have to be, and rules.
* A `MappingRule` names claims and what they have to be, and the tenant, scopes and networks that follow. A
  token counts only if exactly one rule matches, so the order of rules never decides about a right.
* A `Binding` is made when a subject is seen first. It says whether the subject was revoked, and of which
  tenant it is. What its tokens may do follows from the rule in force, for each token anew.
* An `IssuerKeySet` is what the issuer published last. It counts for a bounded time.

Non-goals: verifying a token (`identity/json_web_tokens.py`), and fetching keys (`issuers/`).
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from gateway.model.errors import Reason
from gateway.model.facts import FOLDER_SOURCE, Key, Scope, Tenant
from gateway.model.names import BindingId, KeyId, Pattern, TenantId
from gateway.model.records import Count, Record, Text, Time
from gateway.model.stamps import LEAF_BYTES, Leaf, Stamp
from gateway.model.tenant_records import TenantRecordId

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE_MAPPING = "mapping"
"""The source of bindings: a rule of an issuer's document made them."""

ISSUERS_SOURCE = f"{FOLDER_SOURCE}issuers/"
"""The source of an issuer begins so; the name of its document follows."""

BINDING_SCOPES = frozenset({Scope.DISCOVER, Scope.READ, Scope.INFER})
"""What a rule may give: content. Audit, keys and introspection are for keys that a person made."""

MAX_ISSUERS = 32  # documents: each is asked for its keys
MAX_RULES = 200  # of one issuer: all are compared with each new token, in 0.1 ms
MAX_CLAIMS = 16  # of one rule
MAX_VALUES = 64  # of one claim
MAX_SUBJECT_CHARACTERS = 255  # OpenID Connect Core 1.0, section 2
MAX_LEEWAY_SECONDS = 120  # two machines whose clocks differ by more have a fault to repair
MAX_LIFETIME_SECONDS = 86_400  # a token is no key: who needs more than a day has one made
MAX_BINDINGS = 10_000  # of one issuer, revoked ones included: some 4 MB in Redis
MAX_KEY_SET_BYTES = 64 * 1024  # the largest in use, with certificates, has some 20 kB
KEY_SET_SECONDS = 86_400.0  # how long the last keys count when the issuer does not answer
REFRESH_SECONDS = 600.0  # how old they may be before they are asked for again
WILDCARD = "*"

_LABEL = b"cachegate: binding of issuer and subject, version 1"


class ClaimMatch(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What one claim has to be: one of these texts, or, where one ends with `*`, any text that begins so."""

    claim: Text
    values: tuple[Text, ...]

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Whether the claim is there, is text, and is one of these. A number or a list matches nothing."""
        found = claims.get(self.claim)
        return isinstance(found, str) and any(
            found.startswith(one[:-1]) and len(found) >= len(one) if one.endswith(WILDCARD) else found == one
            for one in self.values
        )


class MappingRule(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The claims that a token needs, all of them, and what follows: tenant, scopes, networks."""

    name: Text
    tenant: TenantId
    claims: Annotated[tuple[ClaimMatch, ...], msgspec.Meta(min_length=1)]
    scopes: frozenset[Scope]
    networks: tuple[str, ...] = ()
    only: Pattern | None = None  # the one model, or all below the prefix, that its tokens may be used for

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Whether every claim that the rule names is as it says."""
        return all(one.matches(claims) for one in self.claims)


class Issuer(Record, frozen=True, kw_only=True, tag=13):
    """One outside issuer, as its document describes it. `url` is the `iss` of its tokens, to the letter."""

    source: Text
    url: Text
    audience: Text
    key_set_url: Text
    algorithms: tuple[Text, ...]
    types: tuple[str, ...]  # of `typ`, in lower case; an empty one permits a token without
    leeway_seconds: Count
    max_lifetime_seconds: Count
    max_bindings: Count
    rules: tuple[MappingRule, ...]

    @property
    def name(self) -> str:
        """The name of its document."""
        return self.source.removeprefix(ISSUERS_SOURCE)


class IssuerKeySet(Record, frozen=True, kw_only=True, tag=14):
    """The keys that an issuer published last, as it wrote them. They are public."""

    url: Text  # of the issuer
    key_set_url: Text  # where they were fetched: a document that names another place makes them worthless
    document: bytes
    fetched_at: Time


class Binding(Record, frozen=True, kw_only=True, tag=15):
    """A subject of an issuer that acts for a tenant. `rules` are those by which it came, each once."""

    source: Text = SOURCE_MAPPING
    binding_id: BindingId
    url: Text  # of the issuer
    subject: Text
    tenant: TenantId
    tenant_record: TenantRecordId | None = None  # stored with the tenant
    rules: tuple[Text, ...]
    created_at: Time
    revoked_at: Time | None = None

    @property
    def digest(self) -> bytes:
        """What it is stored under."""
        return binding_digest(self.url, self.subject)


class FoundIssuer(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An issuer and its keys as they were read, each None where there is none, and the leaves of both."""

    issuer: Issuer | None
    key_set: IssuerKeySet | None
    leaf: Leaf
    key_set_leaf: Leaf


class FoundBinding(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The binding of a subject and the tenant of its rule, each None where there is none; what was read."""

    binding: Binding | None
    tenant: Tenant | None
    stamp: Stamp


class RuleLeaf(Leaf):
    """The record of an issuer, as an input of an answer that stands on one of its rules.

    It is current while that record is. When it no longer is, a running transfer asks whether this very rule
    is still in force; the other rules do not matter to it.
    """

    __slots__ = ("_inner", "rule", "url")

    def __init__(self, inner: Leaf, url: str, rule: MappingRule) -> None:
        self._inner = inner
        self.url = url
        self.rule = rule
        super().__init__(inner.name, inner.value)
        self.held_bytes = LEAF_BYTES + inner.held_bytes

    @property
    def is_current(self) -> bool:
        """Whether the issuer's record has not changed."""
        return self._inner.is_current

    @is_current.setter
    def is_current(self, value: bool) -> None:
        """Only the near cache sets it, on the record's own leaf."""


def find_rule(issuer: Issuer, claims: Mapping[str, Any]) -> tuple[MappingRule | None, Reason]:
    """The one rule that matches these claims; without exactly one, None and why the token is refused."""
    matching = [rule for rule in issuer.rules if rule.matches(claims)]
    if len(matching) == 1:
        return matching[0], Reason.PERMITTED
    return None, Reason.AMBIGUOUS_TOKEN if matching else Reason.UNMAPPED_TOKEN


def binding_digest(url: str, subject: str) -> bytes:
    """The name of a binding: raw text of a token is never part of a Redis name.

    The length in front keeps issuer and subject apart.
    """
    issuer = url.encode()
    return sha256(b"%b %d %b%b" % (_LABEL, len(issuer), issuer, subject.encode())).digest()


def issuer_digest(url: str) -> bytes:
    """The name of an issuer, from the `iss` that a token claims."""
    return sha256(url.encode("utf-8", "surrogatepass")).digest()


def key_of(binding: Binding, rule: MappingRule) -> Key:
    """A binding, with what the rule gives it, in the form in which all callers are judged.

    So revocation, networks and tenant are checked by the same code in the same order as those of a key.
    """
    return Key(
        key_id=KeyId(binding.binding_id),
        tenant=rule.tenant,
        tenant_record=binding.tenant_record,
        name=rule.name,
        scopes=rule.scopes,
        networks=rule.networks,
        created_at=binding.created_at,
        revoked_at=binding.revoked_at,
        pepper_id="-",
        source=binding.source,
    )
