r"""Audit records: a closed schema, and the one canonical form that the chain's hashes cover.

A record is one line of JSON. Its last field is always `hash`, which covers all bytes before it, exactly as
written:

    line      {"kind":"decision",...,"prev":"<64 hex>",...,"hash":"<64 hex>"}\n
    covered   {"kind":"decision",...,"prev":"<64 hex>",...}
    hash      SHA-256 of the covered bytes, lower-case hex

To check a record nobody has to re-encode JSON: cut the last 76 bytes of the line, append `}`, hash, compare.
`prev` is the hash of the record before it in the same chain and 64 zeros in the first, so every hash covers
all the records before it. `seq` counts from 1 without gaps.

A `head` is a record that is also signed: its last field before `hash` is `signature`, Ed25519 over the line
without `signature` and `hash`, closed with `}`. As it contains `prev`, the signature covers the whole chain
up to here.

An absent field means null: no caller was authenticated, no model was named. The schema is closed: there is
no field for the path, the query or the headers of a request (I8). Parsing a record proves nothing about it;
`verify` does.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from typing import Final

SCHEMA_VERSION: Final = 1
GENESIS: Final = "0" * 64
"""`prev` of a chain's first record."""

MAX_LINE_BYTES: Final = 1 << 20  # bounds the memory of a reader; a decision needs about a kilobyte

_HASH_OPENS: Final = b',"hash":"'
_SIGNATURE_OPENS: Final = b',"signature":"'
_CLOSES: Final = b'"}'
_HASH_TAIL_BYTES: Final = len(_HASH_OPENS) + 64 + len(_CLOSES)
_SIGNATURE_TAIL_BYTES: Final = len(_SIGNATURE_OPENS) + 128 + len(_CLOSES)


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
    key_id: str | None = None
    claimed_key_id: str | None = None  # a key that was found but is not valid; no caller is authenticated
    # the kind of key: tenant or admin; link, token: made for a key; binding: a token of an outside issuer
    principal: str | None = None
    action: str | None = None
    grant: str | None = None
    policies: tuple[str, ...] = ()
    generation: int | None = None
    resource: ResourcePart | None = None
    size: int | None = None
    request: RequestPart


class UpstreamPart(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """What an inference server did with a forwarded request. Status 0: it began no answer."""

    server: str
    status: int
    bytes: int
    milliseconds: float


class OutcomeRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="outcome"):
    """The outcome of an allowed request."""

    decision_id: str
    tenant: str | None = None
    key_id: str | None = None
    ending: str
    status: int
    bytes: int
    milliseconds: float
    sha256: str | None = None  # of a file that was hashed while it was sent
    reason: str | None = None  # why a forwarded request was refused after it had been admitted
    upstream: UpstreamPart | None = None  # of a request that was forwarded to an inference server


class ChangeRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="change"):
    """A change of facts or rules that is about to be made."""

    actor: str
    action: str
    tenant: str | None = None
    key_id: str | None = None
    subject: tuple[str, ...] = ()


class ChangeOutcomeRecord(
    Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="change-outcome"
):
    """The outcome of a change: its generation, or none and the reason why it was not made."""

    change_id: str
    tenant: str | None = None
    key_id: str | None = None
    generation: int | None = None
    result: str


class SummaryRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="summary"):
    """Refusals of anonymous callers beyond the rate limit: one record per source, key and second."""

    source: str
    tenant: str | None = None  # the owner of the claimed key
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
    signature: str = ""


Record = (
    DecisionRecord
    | OutcomeRecord
    | ChangeRecord
    | ChangeOutcomeRecord
    | SummaryRecord
    | GapRecord
    | RetentionRecord
    | OpenRecord
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
_link_decoder = msgspec.json.Decoder(Link)
encode = msgspec.json.Encoder().encode
"""Encodes a record without its hash: the bytes that the hash covers."""


class Links:
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


def with_signature(statement: bytes, signature: bytes) -> bytes:
    """The covered bytes of a head: the signed statement, with the signature as its last field."""
    return b'%b,"signature":"%b"}' % (statement[:-1], signature.hex().encode())


def parse_line(line: bytes) -> Record:
    """Parse a line to a record, unverified. Raises `ValueError` when it does not fit the schema."""
    return _decoder.decode(line)


def parse_link(line: bytes) -> Link:
    """Parse the chain fields of a line, unverified. Raises `ValueError` when it lacks them."""
    return _link_decoder.decode(line)


def hash_tail(digest: str) -> bytes:
    """The last bytes of a line with this hash, newline included."""
    return b"%b%b%b\n" % (_HASH_OPENS, digest.encode(), _CLOSES)


def split_hash(line: bytes) -> tuple[bytes, str]:
    """The covered bytes of a line (without newline) and the hash it claims. Raises `ValueError`."""
    tail = line[-_HASH_TAIL_BYTES:]
    claimed_hash = tail[len(_HASH_OPENS) : -len(_CLOSES)]
    if not (tail.startswith(_HASH_OPENS) and tail.endswith(_CLOSES) and len(claimed_hash) == len(GENESIS)):
        raise ValueError("the line does not end with a hash")
    return line[:-_HASH_TAIL_BYTES] + b"}", claimed_hash.decode("ascii")


def split_signature(covered: bytes) -> tuple[bytes, bytes]:
    """The statement of a head and the signature it claims. Raises `ValueError`."""
    tail = covered[-_SIGNATURE_TAIL_BYTES:]
    if not (tail.startswith(_SIGNATURE_OPENS) and tail.endswith(_CLOSES)):
        raise ValueError("the head does not end with a signature")
    claimed_signature = bytes.fromhex(tail[len(_SIGNATURE_OPENS) : -len(_CLOSES)].decode("ascii"))
    return covered[:-_SIGNATURE_TAIL_BYTES] + b"}", claimed_signature
