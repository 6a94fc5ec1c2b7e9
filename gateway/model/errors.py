"""The errors of this project and the reasons why a request is not served.

There are three main classes of error, chosen by who must act, and one enum of reasons, chosen by what
happened: adding a reason never adds a class. The HTTP status of a reason is defined in `problems.py` only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Self


class Reason(StrEnum):
    """What happened, in kebab-case, as in the audit log and the metrics."""

    PERMITTED = "permitted", "A policy permits it and nothing forbids it."

    MALFORMED_PATH = (
        "malformed-path",
        "The path does not parse: encoding, an empty or dot segment, a bad name or one that is too long.",
    )
    MALFORMED_QUERY = "malformed-query", "A query parameter does not parse, or there are too many."
    MALFORMED_BODY = "malformed-body", "The body is not what this route reads, or not strict JSON."
    IMPOSSIBLE_VALUE = (
        "impossible-value",
        "A field has the right form and says what cannot be.",
    )
    MALFORMED_CREDENTIAL = "malformed-credential", "A credential header holds bytes that no key can hold."
    CONFLICTING_CREDENTIALS = "conflicting-credentials", "Two differing credentials came with one request."
    KEY_IN_QUERY = "key-in-query", "A key was put into the URL, where logs and proxies would keep it."

    NO_CREDENTIAL = "no-credential", "No API key was sent."
    UNSUPPORTED_SCHEME = "unsupported-scheme", "The Authorization scheme is not Bearer."
    MISTYPED_KEY = "mistyped-key", "The key's own check digits do not match; it was never looked up."
    UNKNOWN_KEY = "unknown-key", "No key record exists for it."
    UNKNOWN_KEY_LIMIT = (
        "unknown-key-limit",
        "The key is unknown here, and no more is asked of the platform about unknown keys for the moment.",
    )
    REVOKED_KEY = "revoked-key", "The key was revoked."
    DISABLED_KEY = "disabled-key", "The key was disabled, and has not been enabled again."
    DECOY_KEY = "decoy-key", "The key is a decoy that nobody was given: whoever used it found or stole it."
    EXPIRED_KEY = "expired-key", "The key's expiry has passed."
    NOT_YET_VALID = "not-yet-valid", "The key's not-before lies ahead."
    OUTSIDE_NETWORKS = "outside-networks", "The key is bound to networks that the client's address is not in."
    SUSPENDED_TENANT = "suspended-tenant", "The key's tenant is suspended or gone."
    REMOVED_TENANT = (
        "removed-tenant",
        "The key's tenant is being removed, or was removed and another tenant has its name now.",
    )

    MALFORMED_TOKEN = (
        "malformed-token",
        "It begins like an access token, and does not have the one form that is read here.",
    )
    UNKNOWN_SIGNING_KEY = "unknown-signing-key", "The access token names a signing key that is not trusted."
    INVALID_TOKEN = (
        "invalid-token",
        "The access token's signature, issuer, audience, type, times or another claim is not right.",
    )
    EXPIRED_TOKEN = "expired-token", "The access token's end has passed."
    WRONG_CLIENT = "wrong-client", "The key is valid, and the client id that came with it is not its own."
    UNSUPPORTED_GRANT = "unsupported-grant", "A token was asked for in another way than the two that exist."
    NOT_EXCHANGEABLE = (
        "not-exchangeable",
        "What was sent for a token can have none: another token, or a key that the platform rules on.",
    )
    EXCESS_SCOPE = "excess-scope", "A token was asked for with a scope that its key does not have."
    FOREIGN_AUDIENCE = (
        "foreign-audience",
        "A token was asked for that is for somebody else than this gateway.",
    )

    UNREADABLE_KEY = "unreadable-key", "The record of the key or of its tenant does not parse, which denies."

    UNKNOWN_ISSUER = "unknown-issuer", "The token is of an issuer that no document names."
    UNMAPPED_TOKEN = "unmapped-token", "No rule of its issuer's document maps the token to a tenant."
    AMBIGUOUS_TOKEN = (
        "ambiguous-token",
        "Two rules of its issuer's document match the token, or its subject is bound to another tenant.",
    )
    REVOKED_BINDING = "revoked-binding", "The binding of the token's issuer and subject was revoked."
    TOO_MANY_BINDINGS = (
        "too-many-bindings",
        "The token is of a new subject, and its issuer has as many bindings as it may have.",
    )
    BINDING_LIMIT = "binding-limit", "Too many new subjects of the token's issuer came at once."
    NO_LINKS = (
        "no-links",
        "The answer would hold signed URLs, and none are made for this token.",
    )
    ISSUER_UNDECIDED = (
        "issuer-undecided",
        "The keys of the token's issuer are not known, or too old, and it does not answer.",
    )

    MISSING_SCOPE = (
        "missing-scope",
        "The caller may discover it, but the key lacks the scope for this action.",
    )
    MISSING_ACTION = (
        "missing-action",
        "The caller may discover it, but no rule grants this action, or a rule forbids it.",
    )

    NOT_PERMITTED = "not-permitted", "No rule lets the caller discover it, or a rule forbids it."
    EXPIRED_GRANT = (
        "expired-grant",
        "No rule lets the caller discover it any more: the grant or publication that did has ended.",
    )
    GRANT_NOT_YET_VALID = (
        "grant-not-yet-valid",
        "No rule lets the caller discover it yet: a grant or publication that will has not begun.",
    )
    POLICY_ERROR = "policy-error", "A rule failed to evaluate, which denies."
    UNREADABLE_FACT = "unreadable-fact", "A record in Redis does not parse, which denies."
    ABSENT = "absent", "Permitted, but it is not in the cache."
    UNSERVABLE = "unservable", "Permitted and on disk, but not as the engine would have left it there."
    UNATTESTED = (
        "unattested",
        "Permitted and on disk, but other owners link the blob too, and nobody attested it for this model.",
    )
    QUARANTINED = "quarantined", "Permitted and on disk, but its content is not what it was, or not its name."
    UNKNOWN_CURSOR = "unknown-cursor", "The cursor is none that this node of the gateway gave to this reader."
    NOT_YET_PROVEN = "not-yet-proven", "The record has no signed head behind it yet, by which it is proven."
    NOT_PROVABLE = (
        "not-provable",
        "The record cannot be proven alone: its process was killed, or it is of an earlier version.",
    )
    NO_ROUTE = "no-route", "No guarded route has this path."

    MALFORMED_REQUEST = "malformed-request", "It is not HTTP/1.1 as this server reads it."
    SLOW_REQUEST = "slow-request", "The request's headers did not arrive in time."
    METHOD_NOT_ALLOWED = "method-not-allowed", "The route does not answer this method, for anybody."
    BODY_TOO_LARGE = "body-too-large", "The request's body is larger than this face reads."
    PATH_TOO_LONG = "path-too-long", "The request target is longer than any name in the cache can be."
    HEADERS_TOO_LARGE = "headers-too-large", "The request's header block is over the limit."

    CLOSED_ROUTE = "closed-route", "A route of the inference server that no rule can open to tenants."
    RESERVED_PATH = (
        "reserved-path",
        "With the front door at the root, the path names a data set like one of the gateway's own routes.",
    )
    CONFLICTING_MODELS = (
        "conflicting-models",
        "A request to the inference server names two models, or one in a place that its route does not read.",
    )
    FORBIDDEN_FIELD = (
        "forbidden-field",
        "A field of a request to the inference server would bill, upload or reveal: no client may set it.",
    )
    FORBIDDEN_IMAGE = (
        "forbidden-image",
        "An image is named by a file, or by a URL whose host the tenant may not have fetched.",
    )
    IMAGE_NOT_FETCHED = "image-not-fetched", "The image at a URL could not be fetched, or is too large."
    NO_SERVICE_KEY = (
        "no-service-key",
        "The key is one of ours, and the gateway has no key of its own for the inference server.",
    )
    INFERENCE_UNAVAILABLE = (
        "inference-unavailable",
        "No inference server took the request in time, or it broke off before its answer began.",
    )
    UNEXPECTED_MODEL = (
        "unexpected-model",
        "The inference server used another model than those that were authorised; nothing of it was sent.",
    )
    MALFORMED_WORKFLOW = (
        "malformed-workflow",
        "The workflow is not one that the inference server can compile, or larger than one may be.",
    )
    UNKNOWN_WORKLOAD = (
        "unknown-workload",
        "What the workflow loads or does cannot be known before it runs, so it could not be permitted.",
    )
    SAVED_WORKFLOW = (
        "saved-workflow",
        "The workflow is saved elsewhere and cannot be fetched with the caller's own key of the platform.",
    )
    SHARED_SERVER = (
        "shared-server",
        "The workflow reaches what all requests to one server share, and the server is not the tenant's own.",
    )
    OPERATORS_PROJECT = (
        "operators-project",
        "The workflow uploads to a project, and with the operator's key that would be one of the operator's.",
    )
    NO_WORKFLOWS = (
        "no-workflows",
        "The inference server's version is not known here, or it does not say what a workflow will do.",
    )
    UNTRUSTED_PROXY = (
        "untrusted-proxy",
        "A check came from an address that is no trusted proxy's, so nothing of what it says is believed.",
    )
    MALFORMED_CHECK = (
        "malformed-check",
        "A check does not say once, and in the headers of its own proxy alone, which request it is for.",
    )
    UNCHECKABLE = (
        "uncheckable",
        "A request that cannot be checked this way: its answer depends on more than method, path and caller.",
    )
    BUSY = "busy", "Too many bodies are being read, or too many requests are under way."

    INVALID_LINK = "invalid-link", "The link's signature is not one of ours for this file, key and expiry."
    EXPIRED_LINK = "expired-link", "The link's expiry has passed."
    BAD_HOOK_SIGNATURE = "bad-hook-signature", "A webhook came without a valid, recent signature."
    NOT_PROXIED = (
        "not-proxied",
        "Neither our own, nor the provider's, nor a URL that was handed out to this key.",
    )
    PAYMENT_REQUIRED = "payment-required", "The provider demands payment of this key, whatever the model."
    USAGE_PAUSED = "usage-paused", "The provider has paused this key, whatever the model."
    UPSTREAM_REFUSED = "upstream-refused", "The provider knows no such model, or not for this key."
    UPSTREAM_UNAUTHORIZED = "upstream-unauthorized", "The provider does not know this key."

    NO_FACTS = "no-facts", "Redis did not answer, so nothing could be decided."
    NO_LEASE = "no-lease", "The worker could not be sure of its facts: no lease, or no way to follow changes."
    NO_POLICY = "no-policy", "No usable policy set is in force."
    NO_AUDIT = "no-audit", "The decision could not be recorded, so nothing was sent."
    FACTS_MOVED = "facts-moved", "The facts kept changing while the request was decided."
    CACHE_UNAVAILABLE = (
        "cache-unavailable",
        "Nobody could say what is in the cache: it has no root, its disk failed, a manifest is being read.",
    )
    UPSTREAM_UNDECIDED = "upstream-undecided", "The provider did not answer, or its answer made no sense."
    CHANGED_ON_DISK = "changed-on-disk", "The file changed between opening and sending it; nothing was sent."
    NOT_PINNED = "not-pinned", "The file is still being hashed, and this request cannot be answered without."
    PRECONDITION_FAILED = "precondition-failed", "If-Match named another content than there is."
    PRECONDITION_REQUIRED = "precondition-required", "A change of this came without If-Match."
    CONFLICT = "conflict", "The change contradicts the facts."
    FOLDER_OWNED = "folder-owned", "The fact is the policy folder's, which alone changes it."
    EXCESS_RIGHTS = "excess-rights", "A key was to be made, or ended, that the caller's role does not reach."
    REUSED_IDEMPOTENCY_KEY = (
        "reused-idempotency-key",
        "The Idempotency-Key was used for another request before.",
    )
    STILL_RUNNING = "still-running", "The first request with this Idempotency-Key has not ended."
    TOO_MANY_IDEMPOTENCY_KEYS = (
        "too-many-idempotency-keys",
        "The caller has used as many Idempotency-Keys in a day as are kept.",
    )
    RANGE_NOT_SATISFIABLE = "range-not-satisfiable", "No range that was asked for lies within the file."
    INTERNAL = "internal", "A defect of ours; the operator's log has the details."

    explanation: str

    def __new__(cls, value: str, explanation: str) -> Self:
        """Store the explanation with the value: `cachegate explain` and the documents print it."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.explanation = explanation
        return member


UNPERMITTED = frozenset({Reason.NOT_PERMITTED, Reason.EXPIRED_GRANT, Reason.GRANT_NOT_YET_VALID})
"""Denials because nothing lets the caller discover it now."""


class CachegateError(Exception):
    """Base class of everything this project raises on purpose."""


class BadNameError(CachegateError, ValueError):
    """A string is not a name of the expected kind; the message says what would be.

    Raised by the `parse_` functions of `names.py`. Each entry point translates it: a path into a refusal,
    a command line into a usage error, a policy document into file and line.
    """


class NameTooLongError(BadNameError):
    """A string has more segments or bytes than a name may have.

    A class of its own, because the engine has no such bound: it may have written a file with such a name.
    """


class FieldProblem(NamedTuple):
    """What is wrong with one field of the caller's own request, by its JSON pointer (RFC 6901)."""

    pointer: str
    detail: str


class Refusal(CachegateError):  # noqa: N818 -- a refusal is an answer to the client, not an error of ours
    """The client must act: the request is not served, for this reason.

    `key_id` names a key that was found but is not valid (revoked, expired, ...), and `tenant` its
    owner: for the record only. `told` and `fields` are for the client alone: what of its own request is the
    cause.
    """

    def __init__(
        self,
        reason: Reason,
        *,
        key_id: str | None = None,
        tenant: str | None = None,
        client_detail: str | None = None,
        tenant_record: str | None = None,
        fields: tuple[FieldProblem, ...] = (),
    ) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.key_id = key_id
        self.tenant = tenant
        self.tenant_record = tenant_record  # the id of its record
        self.stands_on_facts = False  # whatever its reason: facts said so, which may be old without a lease
        self.client_detail = client_detail
        self.fields = fields


class Unavailable(CachegateError):  # noqa: N818 -- reads as the state it names
    """The operator must act soon: a dependency of the guard does not answer. Raised by adapters.

    The guard answers 503: a missing dependency is neither an allow nor a denial (I7).
    """

    def __init__(self, dependency: str, why: str, reason: Reason = Reason.NO_FACTS) -> None:
        super().__init__(f"{dependency}: {why}")
        self.dependency = dependency
        self.why = why
        self.reason = reason


class ProviderSilentError(Unavailable):
    """The provider did not answer: no connection, no answer in time, or a gateway's error that says so.

    Only this lets a degraded tenant be served on last known facts; an unexpected answer does not.
    """

    def __init__(self, why: str) -> None:
        super().__init__("upstream", why, Reason.UPSTREAM_UNDECIDED)


class UnknownOutcome(Unavailable):
    """A change was sent and its answer was lost: it may have been made. We never repeat it."""


class UnknownHistory(Unavailable):
    """The server's facts are not those that this node knew, or an older state of them: no read, no write.

    The operator who restored or replaced the server has to confirm it.
    """

    def __init__(self, display: str) -> None:
        super().__init__(
            "redis",
            f"{display} holds another history of the facts than this node saw last, or an older state of it; "
            "revocations may be missing. If that is meant, run `cachegate directory accept` on each node",
            Reason.NO_LEASE,
        )


class NotHeld(Unavailable):
    """A change was made, but not every server that may be promoted is known to have it: it may be lost."""


class WithdrawnError(CachegateError):
    """A change invalidated a recorded answer before its first byte: decide again, or give up."""


class Misconfigured(CachegateError):  # noqa: N818 -- reads as the state it names
    """The operator must act now: the process does not start, or a document is refused.

    `where` is a file with its line, a setting or a command's argument; `why` says what was found,
    what was expected and what to do.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class Conflict(CachegateError):  # noqa: N818 -- reads as the state it names
    """A change contradicts the facts: a tenant that exists already, a key that does not.

    Commands exit 1 on it, the admin API answers 409 or 404.
    """


class UnknownName(Conflict):
    """An operator named something that does not exist. `kind` is what it would be: a tenant, a key.

    Commands add the nearest name that exists. Clients never see this: existence is hidden (I3).
    """

    def __init__(self, kind: str, name: str, advice: str) -> None:
        super().__init__(f"there is no {kind} {name}; {advice}")
        self.kind = kind
        self.name = name
        self.advice = advice
