"""The values from a decision to its delivery: Allowed, Denied, Admission, Receipt, Outcome.

The types enforce the order of the pipeline. `decide` gives Allowed or Denied; an Allowed becomes an
Admission when the resource was found on disk; only `audit/` makes a Receipt of an Admission, and `deliver`
takes nothing but a Receipt: bytes without an audit record do not type-check (I5).
"""

from __future__ import annotations

import os
from enum import StrEnum
from sys import getsizeof
from typing import TYPE_CHECKING

import msgspec

from gateway.model.hidden_fields import shown
from gateway.model.listings import CataloguePage, ModelListing, PackageListing
from gateway.model.questions import Evaluated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.model.access import Access, Principal, Resource, WireRequest
    from gateway.model.access_claims import AccessClaims
    from gateway.model.errors import FieldProblem, Reason
    from gateway.model.header_block import Headers
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId
    from gateway.model.stamps import Stamp

    OnChanged = Callable[[int | None, str, tuple[str, str] | None], None]

FILE_BYTES = 700  # of a found file, beside its names and its content: measured, rounded up
HEADERS_BYTES = 2_000  # of the headers of an answer with it, as pairs and as lines


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """The rules permit the access. `model` is the canonical id; `policies` the determining ones."""

    access: Access
    model: ModelId | None
    policies: tuple[str, ...]
    grant: str | None  # the right it is recorded under: owner, public, or a grant's id
    stamp: Stamp


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """The rules do not permit the access, or something could not be known.

    `may_discover` says whether the caller has the right to know that the resource exists: it makes
    the difference between 403 and 404 (I3), and only once the resource was found to exist.
    """

    access: Access
    reason: Reason
    model: ModelId | None
    policies: tuple[str, ...] = ()
    may_discover: bool = False
    stamp: Stamp | None = None
    grant: str | None = None  # grants that would give it, and have ended or not begun; for the record


Verdict = Allowed | Denied


class OpenFile(msgspec.Struct, frozen=True, kw_only=True):
    """An open file about to be served. Its holder has to close it: `Receipt.close` does."""

    descriptor: int
    size: int
    identity: tuple[int, int, int, int, int]  # device, inode, size, mtime_ns, ctime_ns
    model: ModelId
    package: PackageId
    handle: FileHandle
    md5: Md5 | None
    sha256: str | None = None  # lower-case hex, if the content was hashed under this very identity

    @property
    def held_bytes(self) -> int:
        """The bytes that it keeps in memory."""
        return FILE_BYTES + getsizeof(self.model) + getsizeof(self.package) + getsizeof(self.handle)


class HeldFile(OpenFile, frozen=True, kw_only=True):
    """A file that needs no open descriptor: the disk has it under this very identity.

    `content` is the content of a small file, which is served from memory. Of a large one only the headers are
    known, which is enough for HEAD. `headers` are those of a plain answer with it.
    """

    content: bytes | None
    headers: Headers

    def __repr__(self) -> str:
        return shown(self, hidden=("content",))

    @property
    def held_bytes(self) -> int:
        """The same, with the content."""
        names = getsizeof(self.model) + getsizeof(self.package) + getsizeof(self.handle)
        return FILE_BYTES + names + HEADERS_BYTES + (len(self.content) if self.content else 0)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The caller itself, for `/v1/whoami`."""

    principal: Principal


class EngineAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An answer in the engine's protocol, as it will be sent. It may contain signed URLs: never printed."""

    body: bytes

    def __repr__(self) -> str:
        return shown(self, hidden=("body",))


class RelayedFile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A file that is not in the cache, and its URL at the provider. The URL is signed: never printed."""

    model: ModelId
    package: PackageId
    handle: FileHandle
    md5: Md5 | None
    url: str

    def __repr__(self) -> str:
        return shown(self, hidden=("url",))


class Forwarded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request that an inference server answers: nothing of it is in the cache. `answer` sends it there."""

    answer: Callable[[Receipt], Awaitable[object]]  # an `Answer`


class TokenGrant(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A token that is about to be signed for its caller."""

    claims: AccessClaims


class Ordered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An operation of the administration with all that it was ordered with; `answer` carries it out.

    The last check of a change is before it begins, and again in its transaction, and not before the answer:
    the change may end what it was decided on.
    """

    answer: Callable[[Receipt], Awaitable[object]]  # an `Answer`
    is_change: bool
    ends_with_client: bool = False  # an answer that may take long, and is for nobody once its client left


class Introspected(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a caller is told about a token. None: it is not active, or the caller may not know of it."""

    claims: AccessClaims | None


class RecordProof(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The proof of one of the caller's own audit records, as a file."""

    body: bytes


Found = (
    OpenFile
    | PackageListing
    | ModelListing
    | CataloguePage
    | Identity
    | EngineAnswer
    | RelayedFile
    | Forwarded
    | TokenGrant
    | Introspected
    | Evaluated
    | Ordered
    | RecordProof
)


class Admission(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """An allowed access with the resource that was found: it remains to record and send it."""

    request: WireRequest
    allowed: Allowed
    found: Found
    stamp: Stamp  # of everything the answer depends on: the key, the decision, each model of a page
    key_stamp: Stamp  # of the key and its tenant alone: what a transfer in progress still depends on

    def release(self) -> None:
        """Close the file of an admission that could not be recorded."""
        if isinstance(self.found, OpenFile) and not isinstance(self.found, HeldFile):
            os.close(self.found.descriptor)


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """A request that will not be served, with everything known when it was refused."""

    request: WireRequest
    reason: Reason
    principal: Principal | None = None
    resource: Resource | None = None
    action: str | None = None
    model: ModelId | None = None
    policies: tuple[str, ...] = ()
    claimed_key_id: str | None = None  # of a key that was found but is not valid: revoked, expired, ...
    claimed_tenant: str | None = None  # the owner of that key
    claimed_tenant_record: str | None = None  # the id of its record
    grant: str | None = None  # grants that would have given it, and are not in force: recorded, never told
    stamp: Stamp | None = None
    meant: str | None = None  # the template of the wrapped route, if the request's own route wraps another
    # For the client alone: what of its own request is the cause, at all or field by field. Never recorded.
    client_detail: str | None = None
    fields: tuple[FieldProblem, ...] = ()


class Declined(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer to a refused request, after it was recorded. The optional fields are as in a `Rejection`."""

    reason: Reason
    record_id: str
    meant: str | None = None
    client_detail: str | None = None
    fields: tuple[FieldProblem, ...] = ()


class Ending(StrEnum):
    """How a recorded delivery ended."""

    COMPLETE = "complete"
    CLIENT_GONE = "client-gone"
    CHANGED_ON_DISK = "changed-on-disk"
    WITHDRAWN = "withdrawn"  # a fact changed before the first byte; nothing was sent
    REVOKED = "revoked"  # during the transfer the key was revoked or its tenant suspended, or one was deleted
    EXPIRED = "expired"  # the key expired during the transfer
    NOT_YET_VALID = "not-yet-valid"  # record or clock changed: the key's not-before is ahead again
    OUTSIDE_NETWORKS = "outside-networks"  # the key was bound to networks that the client is not in
    UNDECIDED = "undecided"  # whether one of these happened could not be found out in time
    QUARANTINED = "quarantined"  # hashed while it was sent, and not what its name or its pin says
    HANDED_OFF = "handed-off"  # the proxy in front sends it; how that ended is in its log, not in ours
    RELAYED = "relayed"  # complete, and streamed from the provider: its content was not verified here
    FAILED = "failed"


class ServerOutcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an inference server did with a request. Status 0: it began no answer."""

    server: str  # its name in the settings: host, port and path
    status: int
    bytes_received: int
    milliseconds: float  # from the moment that the request was sent until its answer ended


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of a recorded admission."""

    ending: Ending
    status: int
    bytes_sent: int
    milliseconds: float
    sha256: str | None = None  # of a file that was not pinned yet and was hashed while it was sent
    reason: Reason | None = None  # why a forwarded request was refused after it had been admitted
    upstream: ServerOutcome | None = None  # of a request that was forwarded to an inference server


WITHDRAWN = Outcome(ending=Ending.WITHDRAWN, status=0, bytes_sent=0, milliseconds=0.0)
"""Recorded as allowed, but the facts changed before the first byte: nothing was sent."""


class Receipt:
    """Proof that a decision is in the audit log. Only `audit/` makes one (an architecture test holds that).

    The deliverer closes it: that writes the outcome record and closes the open file, once.
    """

    __slots__ = ("_on_close", "admission", "record_id")

    def __init__(self, *, record_id: str, admission: Admission, on_close: Callable[[Outcome], None]) -> None:
        self.record_id = record_id
        self.admission = admission
        self._on_close: Callable[[Outcome], None] | None = on_close

    def close(self, outcome: Outcome) -> None:
        """Record how it ended and close the file. Further calls do nothing."""
        on_close, self._on_close = self._on_close, None
        if on_close is None:
            return
        self.admission.release()
        on_close(outcome)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change of facts or rules that an operator ordered: recorded before it is made, closed after.

    `action` is the command's name (`keys.revoke`, `policy.apply`), `subject` the names that it is about:
    patterns, aliases, groups, grant ids. No field can hold a secret (I8).
    """

    actor: str  # `cli:<user name>` or a key id
    action: str
    tenant: str | None = None
    tenant_record: str | None = None
    key_id: str | None = None
    subject: tuple[str, ...] = ()
    received_at: float
    is_digested: bool = False  # its record says what the facts were before and after, by digests


class ChangeReceipt:
    """Proof that a change is in the audit log, held until it is known whether it was made."""

    __slots__ = ("_on_close", "record_id")

    def __init__(self, *, record_id: str, on_close: OnChanged) -> None:
        self.record_id = record_id
        self._on_close: OnChanged | None = on_close

    def close(self, *, generation: int | None, result: str, digests: tuple[str, str] | None = None) -> None:
        """Record the generation of the change, or None and why it was not made. Once."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close(generation, result, digests)
