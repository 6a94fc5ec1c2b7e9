r"""Audit records: a closed schema, and the one canonical form that the chain's hashes cover.

A record is one line of JSON. Its last member is always `hash`; everything before it is what the
hash covers, byte for byte as written:

    line      {"kind":"decision",...,"prev":"<64 hex>",...,"hash":"<64 hex>"}\n
    covered   {"kind":"decision",...,"prev":"<64 hex>",...}
    hash      SHA-256 of the covered bytes, lower-case hex

Nobody has to re-encode JSON to check a record: cut the last 76 bytes of the line, put a `}` there,
hash, compare. `prev` is the hash of the record before it in the same chain and 64 zeros in the
first, so every hash covers all the records before it. `seq` counts from 1 without gaps.

A `head` is a record that is signed as well: its last member before `hash` is `signature`, Ed25519
over the same kind of bytes, the line without `signature` and `hash`. As it contains `prev`, the
signature covers the whole chain up to here.

A member that is absent is null: nobody was authenticated, no model was named. Fields are a closed
list: the path, the query and the headers of a request have no place here (I8). Reading a record
proves nothing; `verify` does.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from typing import Final

SCHEMA_VERSION: Final = 1
GENESIS: Final = "0" * 64
"""`prev` of a chain's first record."""

MAX_LINE_BYTES: Final = 1 << 20  # bounds what a reader holds in memory; a decision needs about a kilobyte

_HASH_OPENS: Final = b',"hash":"'
_SIGNATURE_OPENS: Final = b',"signature":"'
_CLOSES: Final = b'"}'
_HASH_TAIL_BYTES: Final = len(_HASH_OPENS) + 64 + len(_CLOSES)
_SIGNATURE_TAIL_BYTES: Final = len(_SIGNATURE_OPENS) + 128 + len(_CLOSES)


ENDED_BY_OTHERS: Final = frozenset({"abandoned", "recovered"})
"""The states of a head that stands in `heads.jsonl` only, in the place of a record that never came."""


class Envelope(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, forbid_unknown_fields=True
):
    """What every record has: where it stands in which chain, when, and on which node it was written."""

    schema: int
    id: str
    chain: str
    seq: int
    prev: str
    time: str
    node: str
    hash: str = ""  # empty while it is written; `seal` puts it at the end of the line


class ResourcePart(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """What was asked for. `requested` is the client's name of the model, `model` the canonical one."""

    kind: str
    requested: str | None = None
    model: str | None = None
    package: str | None = None
    file: str | None = None
    md5: str | None = None
    sha256: str | None = None


class RequestPart(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """What is kept of a request. `route` is the declared template, never the client's text."""

    method: str
    route: str
    client: str
    agent: str | None = None
    trace_id: str | None = None


class DecisionRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="decision"):
    """One decision. The way of an allow is in it: key, tenant, grant, model, package, file, blob."""

    decision: str  # allow or deny
    reason: str
    tenant: str | None = None  # whose key it is, whether it was valid or not
    key_id: str | None = None
    claimed_key_id: str | None = None  # of a key that was found but is not valid; nobody was authenticated
    principal: str | None = None  # tenant or admin: a key of that kind; link: a signed link of a key
    action: str | None = None
    grant: str | None = None
    policies: tuple[str, ...] = ()
    generation: int | None = None
    resource: ResourcePart | None = None
    size: int | None = None
    request: RequestPart


class OutcomeRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="outcome"):
    """What became of a recorded allow."""

    decision_id: str
    tenant: str | None = None
    key_id: str | None = None
    ending: str
    status: int
    bytes: int
    milliseconds: float
    sha256: str | None = None  # of a file that was hashed only while it was sent


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
    """What became of it: the generation it got, or none and why it was not made."""

    change_id: str
    tenant: str | None = None
    key_id: str | None = None
    generation: int | None = None
    result: str


class SummaryRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="summary"):
    """Refusals of callers who are nobody, beyond the limit: one record for a source, its key and second."""

    source: str
    tenant: str | None = None  # whose key it is
    claimed_key_id: str | None = None
    second: str
    count: int
    reasons: dict[str, int]


class OpenRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="open"):
    """Writing starts here, or goes on after a fault. `after_` names the lost chain before."""

    reason: str
    after_chain: str | None = None
    after_seq: int | None = None
    after_hash: str | None = None


class HeadRecord(Envelope, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="head"):
    """A signed statement: this chain has come so far, and these chains of the node are being written.

    `state` is `live`, `closed` (nothing follows), or one of two that stand in `heads.jsonl` only, in
    the place of a record that the chain does not have:

    - `abandoned`: something was wrong with the files under the writer, which says how far it had come;
    - `recovered`: the chain's process ended without a last head. The next process of the node says how
      far it found the chain to go; what stands from `unproven_from` on is thereby not proven.

    In `heads.jsonl` each head stands within a line that is linked and signed itself (`heads_file.py`).
    `listed_bytes` and `listed_hash` say how long that file was when the head was made, and by which
    hash its last line ended: a file that has another line there is not the one that was written.
    """

    state: str
    segment: int
    signer: str
    live: tuple[str, ...]
    unproven_from: int | None = None
    listed_bytes: int | None = None  # absent in heads of releases before this member
    listed_hash: str | None = None
    signature: str = ""


Record = (
    DecisionRecord
    | OutcomeRecord
    | ChangeRecord
    | ChangeOutcomeRecord
    | SummaryRecord
    | OpenRecord
    | HeadRecord
)


class Link(msgspec.Struct, frozen=True, gc=False):
    """The part of a record that the chain is made of; what a verifier decodes of most lines."""

    kind: str
    chain: str
    seq: int
    prev: str
    time: str


_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
_link_decoder = msgspec.json.Decoder(Link)
encode = msgspec.json.Encoder().encode
"""A record without its hash, as the bytes that the hash covers."""


class Links:
    """Where the next record stands: what it must say to be part of the chain."""

    __slots__ = ("chain", "hash", "seq")

    def __init__(self, chain: str) -> None:
        self.chain = chain
        self.seq = 0
        self.hash = GENESIS


def hash_of(covered: bytes) -> str:
    """What the hash of these bytes is."""
    return hashlib.sha256(covered).hexdigest()


def seal(covered: bytes) -> tuple[bytes, str]:
    """The line, newline included, and the hash of the covered bytes."""
    digest = hash_of(covered)
    return b'%b,"hash":"%b"}\n' % (covered[:-1], digest.encode()), digest


def with_signature(statement: bytes, signature: bytes) -> bytes:
    """The covered bytes of a head: the statement that was signed, with the signature as its last member."""
    return b'%b,"signature":"%b"}' % (statement[:-1], signature.hex().encode())


def parse_line(line: bytes) -> Record:
    """A record of a line, unverified. Raises `ValueError` when it is none of the schema."""
    return _decoder.decode(line)


def parse_link(line: bytes) -> Link:
    """The chain's part of a line, unverified. Raises `ValueError` when it has none."""
    return _link_decoder.decode(line)


def hash_tail(digest: str) -> bytes:
    """How a line with this hash ends, newline included."""
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
