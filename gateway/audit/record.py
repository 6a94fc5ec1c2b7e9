r"""Audit records: a closed schema, and the one canonical form that the chain's hashes cover.

A record is one line of JSON. `hash` covers the record without it, in **canonical form**: names sorted, no
blanks, UTF-8, and values that have one text each: strings, integers below 2^53, objects and lists of these;
no floats (`canonical.py`). Records are written in this form at once, with `hash` after it:

    line      {"action":"read",...,"time":"<time>","hash":"<64 hex>"}\n
    covered   {"action":"read",...,"time":"<time>"}
    hash      SHA-256 of the covered bytes, lower-case hex

To check a line as it was written nobody has to re-encode JSON: cut the last 76 bytes, append `}`, hash,
compare. A record that a program has parsed and printed anew (`jq -S`, a SIEM) is brought into canonical
form first. `prev` is the hash of the record before it in the same chain and 64 zeros in the first, so every
hash covers all the records before it. `seq` counts from 1 without gaps.

A `head` is a record that is also signed: `signature` is Ed25519 over the canonical form without `signature`
and `hash`. As it contains `prev`, the signature covers the whole chain up to here. It also contains the
root of the Merkle tree over the records since the head before it (`merkle.py`), by which each of them can
be proven without the others.

Version 1 had the same fields in another order, `signature` last, times in milliseconds as floats, and no
trees. Its lines are read and verified as they are: the rule for the bytes of a line is the same.

An absent field means null: no caller was authenticated, no model was named. The schema is closed: there is
no field for the path, the query or the headers of a request (I8). Parsing a record proves nothing about it;
`verify` does.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

SCHEMA_VERSION: Final = 2
FIRST_WITH_TREES: Final = 2
"""The first version whose heads have a Merkle root."""
GENESIS: Final = "0" * 64
"""`prev` of a chain's first record."""

MAX_LINE_BYTES: Final = 1 << 20  # bounds the memory of a reader; a decision needs about a kilobyte

_HASH_OPENS: Final = b',"hash":"'
_SIGNATURE_OPENS: Final = b',"signature":"'
_CLOSES: Final = b'"}'
HASH_TAIL: Final = _HASH_OPENS + b"%b" + _CLOSES + b"\n"
_HASH_TAIL_BYTES: Final = len(_HASH_OPENS) + 64 + len(_CLOSES)
LINE_TAIL_BYTES: Final = _HASH_TAIL_BYTES + 1
_BRACE: Final = b"}"
_SIGNATURE_BYTES: Final = len(_SIGNATURE_OPENS) + 128 + 1


ENDED_BY_OTHERS: Final = frozenset({"abandoned", "recovered"})
"""The states of a head that is in `heads.jsonl` only, at a position where the chain has no record."""


class Envelope(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, forbid_unknown_fields=True
):
    """The fields of every record: its position in a chain, its time, and the node that wrote it."""

    schema: int
    id: str
    chain: str
    seq: int
    prev: str
    time: str
    node: str
    hash: str = ""  # empty until `seal` appends it to the line


class ResourcePart(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """The requested resource. `requested` is the client's name of the model, `model` the canonical one."""

    kind: str
    requested: str | None = None
    model: str | None = None
    package: str | None = None
    file: str | None = None
    md5: str | None = None
    sha256: str | None = None
    subject: str | None = None  # what is administered, by its id


class RequestPart(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """The recorded fields of a request. `route` is the declared template, never the client's text."""

    method: str
    route: str
    client: str
    agent: str | None = None
    trace_id: str | None = None


class DecisionRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="decision"):
    """One decision. An allow names its whole grant path: key, tenant, grant, model, package, file, blob."""

    decision: str  # allow or deny
    reason: str
    tenant: str | None = None  # the owner of the key, whether the key was valid or not
    tenant_record: str | None = None  # the id of its record: tells it from others of the same name
    key_id: str | None = None
    claimed_key_id: str | None = None  # a key that was found but is not valid; no caller is authenticated
    # the kind of key: tenant or admin; link, token: made for a key; binding: a token of an outside issuer
    principal: str | None = None
    action: str | None = None
    grant: str | None = None  # of a refusal: what would have allowed it, but has ended or not begun
    policies: tuple[str, ...] = ()
    generation: int | None = None
    resource: ResourcePart | None = None
    size: int | None = None
    request: RequestPart


class SubjectPart(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """Whom a question was about: `key` or `tenant`, and its id as it was asked. It may not exist."""

    kind: str
    id: str


class QuestionRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="question"):
    """One question about access, and its answer. Nothing was read or sent, so it has no outcome.

    `ask_id` is the decision that let the caller ask; it has the request, and an outcome. `tenant` and
    `key_id` are those of the caller, as everywhere. What the question named and does not parse is absent.
    """

    ask_id: str
    item: int  # its place in the request, from 0
    tenant: str | None = None
    tenant_record: str | None = None
    key_id: str | None = None
    answer: str  # yes, no, or undecided, which the caller was told as a no
    reason: str
    subject: SubjectPart | None = None
    asked: str | None = None  # the action
    resource: ResourcePart | None = None
    grant: str | None = None
    policies: tuple[str, ...] = ()
    generation: int | None = None
    moment: str | None = None  # that was asked about; absent: the time of the record
    address: str | None = None


class UpstreamPart(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """What an inference server did with a forwarded request. Status 0: it began no answer."""

    server: str
    status: int
    bytes: int
    microseconds: int | None = None
    milliseconds: float | None = None  # in its place in records of version 1

    @property
    def elapsed_milliseconds(self) -> float:
        """How long it took, of any version."""
        return _elapsed(self.microseconds, self.milliseconds)


class OutcomeRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="outcome"):
    """The outcome of an allowed request."""

    decision_id: str
    tenant: str | None = None
    tenant_record: str | None = None
    key_id: str | None = None
    ending: str
    status: int
    bytes: int
    microseconds: int | None = None
    milliseconds: float | None = None  # in its place in records of version 1
    sha256: str | None = None  # of a file that was hashed while it was sent
    reason: str | None = None  # why a forwarded request was refused after it had been admitted
    upstream: UpstreamPart | None = None  # of a request that was forwarded to an inference server

    @property
    def elapsed_milliseconds(self) -> float:
        """How long the answer took, of any version."""
        return _elapsed(self.microseconds, self.milliseconds)


class ChangeRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="change"):
    """A change of facts or rules that is about to be made."""

    actor: str
    action: str
    tenant: str | None = None
    tenant_record: str | None = None
    key_id: str | None = None
    subject: tuple[str, ...] = ()


class ChangeOutcomeRecord(
    Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="change-outcome"
):
    """The outcome of a change: its generation, or none and the reason why it was not made."""

    change_id: str
    tenant: str | None = None
    tenant_record: str | None = None
    key_id: str | None = None
    generation: int | None = None
    result: str
    before: str | None = None  # SHA-256 of the records that it wrote, as they were, and as they are
    after: str | None = None


class SummaryRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="summary"):
    """Refusals of anonymous callers beyond the rate limit: one record per source, key and second."""

    source: str
    tenant: str | None = None  # the owner of the claimed key
    tenant_record: str | None = None
    claimed_key_id: str | None = None
    second: str
    count: int
    reasons: dict[str, int]


class GapRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="gap"):
    """A time in which nothing could be recorded, and nothing was served; written once it was over.

    `refused` counts the calls for a record that failed meanwhile; a request that is tried again counts again.
    """

    since: str
    until: str
    refused: int
    why: str


class RetentionRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="retention"):
    """What retention does with old segments, recorded before it does it.

    `state` is `waiting` (they are due, and `consumers` still need them: an alarm), `removing`, or `refused`
    (they do not verify, so they stay). `note` is the hash of the signed note that has the details.
    """

    state: str
    why: str
    segments: int
    bytes: int
    until: str | None = None  # the time of the newest record in them
    consumers: tuple[str, ...] = ()
    note: str | None = None


class OpenRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="open"):
    """The start of a chain, or of writing after a fault. `after_` names the lost chain it continues."""

    reason: str
    after_chain: str | None = None
    after_seq: int | None = None
    after_hash: str | None = None


class RefusedChangeRecord(
    Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="refused-change"
):
    """A change that somebody asked for and may not make, or that was refused as it was asked for."""

    actor: str
    action: str
    reason: str
    tenant: str | None = None
    key_id: str | None = None
    subject: tuple[str, ...] = ()


class WorkerRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="worker"):
    """A worker began to serve, or stopped in order: `state` is `started` or `stopped`.

    One that was killed writes no `stopped`; its chain is recovered by the next start.
    """

    worker: str
    state: str
    version: str


class ModeRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="mode"):
    """A worker lost its lease on the facts, or has one again: `normal`, `no-lease` or `unknown-history`.

    In any other mode than `normal`, only tenants with a degraded period are served, on the last known facts.
    """

    worker: str
    mode: str
    generation: int | None = None  # up to which the worker had applied the facts


class QuarantineRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="quarantine"):
    """A blob is not served any more: its content is not what its name (`md5`) or its pin says."""

    md5: str
    found: str  # the SHA-256 that was measured
    pinned: str | None = None  # the SHA-256 that was pinned before, if any
    source: str


class AnchorRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="anchor"):
    """The heads up to here were time-stamped: they were there at `stamped_at`, says the authority."""

    listed_bytes: int
    listed_hash: str
    authority: str
    stamped_at: str


class ExportRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="export"):
    """Records are passed on to a consumer: `state` is `started` or `ended`; then `records` counts them.

    Of a consumer that is kept (`consumers/registry.py`): `added`, `removed`, or `refused`. Then the consumer
    refused so many `records` for good: it has a gap, and they are in its file of dead letters.
    """

    target: str
    state: str
    records: int | None = None
    reason: str | None = None  # why it ended


class HeadRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="head"):
    """A signed statement: how far this chain goes, and which chains of the node are being written.

    `state` is `live`, `closed` (no record follows), or one of two states that occur in `heads.jsonl` only,
    at a position where the chain has no record:

    - `abandoned`: the writer found its files damaged, started another chain, and says how far this one went;
    - `recovered`: the chain's process ended without a last head. The next process of the node says how
      far the chain goes; records from `unproven_from` on are thereby not proven.

    In `heads.jsonl` each head is part of a line that is itself linked and signed (`heads_file.py`).
    `listed_bytes` and `listed_hash` are the size of that file when the head was made and the hash of its
    last line: a file that has another line there is not the one that was written.
    """

    state: str
    segment: int
    signer: str
    live: tuple[str, ...]
    unproven_from: int | None = None
    listed_bytes: int | None = None  # absent in heads of releases before this field
    listed_hash: str | None = None
    tree_root: str | None = None  # absent in heads of version 1, and in recovered heads, which prove nothing
    tree_size: int | None = None  # of the records in front of this head, since the head before it
    signature: str = ""


Event = RefusedChangeRecord | WorkerRecord | ModeRecord | QuarantineRecord | AnchorRecord | ExportRecord
"""What is neither about a request, nor a change of facts, nor about the log itself."""

Record = (
    DecisionRecord
    | QuestionRecord
    | OutcomeRecord
    | ChangeRecord
    | ChangeOutcomeRecord
    | SummaryRecord
    | GapRecord
    | RetentionRecord
    | OpenRecord
    | RefusedChangeRecord
    | WorkerRecord
    | ModeRecord
    | QuarantineRecord
    | AnchorRecord
    | ExportRecord
    | HeadRecord
)


class Link(msgspec.Struct, frozen=True, gc=False):
    """The fields that link a record to its chain; all that a verifier decodes of most lines."""

    kind: str
    chain: str
    seq: int
    prev: str
    time: str


_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
parse_link = msgspec.json.Decoder(Link).decode
"""Parses the chain fields of a line, unverified. Raises `ValueError` when it lacks them."""
encode = msgspec.json.Encoder(order="sorted").encode
"""Encodes a record without its hash, in canonical form: the bytes that the hash covers."""


class ChainPosition:
    """The position of the next record: its chain, and the number and hash of the record before it."""

    __slots__ = ("chain", "hash", "seq")

    def __init__(self, chain: str) -> None:
        self.chain = chain
        self.seq = 0
        self.hash = GENESIS


def hash_of(covered: bytes) -> str:
    """The hash of covered bytes, in lower-case hex."""
    return sha256(covered).hexdigest()


def seal(covered: bytes) -> tuple[bytes, str]:
    """The whole line, newline included, and its hash."""
    digest = sha256(covered).hexdigest()
    return b'%b,"hash":"%b"}\n' % (covered[:-1], digest.encode()), digest


def encode_signed(unsigned: msgspec.Struct, sign: Callable[[bytes], bytes]) -> bytes:
    """The covered bytes of what has a signature: it signs the canonical form without it."""
    signature = sign(encode(unsigned)).hex()
    return encode(msgspec.structs.replace(unsigned, signature=signature))


def parse_line(line: bytes) -> Record:
    """Parse a line to a record, unverified. Raises `ValueError` when it does not fit the schema."""
    return _decoder.decode(line)


def hash_tail(digest: str) -> bytes:
    """The last bytes of a line with this hash, newline included."""
    return HASH_TAIL % digest.encode()


def find_digest(line: bytes) -> bytes | None:
    """The hash of a line (newline included), if that is the one which the line has; else None."""
    digest = sha256(line[:-LINE_TAIL_BYTES] + _BRACE).digest()
    return digest if line[-LINE_TAIL_BYTES:] == HASH_TAIL % digest.hex().encode() else None


def split_hash(line: bytes) -> tuple[bytes, str]:
    """The covered bytes of a line (without newline) and the hash it claims. Raises `ValueError`."""
    tail = line[-_HASH_TAIL_BYTES:]
    claimed_hash = tail[len(_HASH_OPENS) : -len(_CLOSES)]
    if not (tail.startswith(_HASH_OPENS) and tail.endswith(_CLOSES) and len(claimed_hash) == len(GENESIS)):
        raise ValueError("the line does not end with a hash")
    return line[:-_HASH_TAIL_BYTES] + b"}", claimed_hash.decode("ascii")


def split_signature(covered: bytes) -> tuple[bytes, bytes]:
    """The statement of a head and the signature it claims. Raises `ValueError`.

    The bytes that are looked for cannot be within a string, where each quote has a backslash before it. The
    last place counts: a line of `heads.jsonl` contains a signed head, and its own signature comes after it.
    """
    start = covered.rfind(_SIGNATURE_OPENS)
    end = start + _SIGNATURE_BYTES
    if start < 0 or covered[end - 1 : end] != b'"' or covered[end : end + 1] not in (b",", b"}"):
        raise ValueError("the head has no signature")
    claimed_signature = bytes.fromhex(covered[start + len(_SIGNATURE_OPENS) : end - 1].decode("ascii"))
    return covered[:start] + covered[end:], claimed_signature


def _elapsed(microseconds: int | None, milliseconds: float | None) -> float:
    return (milliseconds or 0.0) if microseconds is None else microseconds / 1000
