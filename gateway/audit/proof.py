"""The proof of one record: a small file that is checked without the log, and shows no other record.

It holds the record, the path through the Merkle tree of the head that covers it (`merkle.py`), that head, and
the changes of the signing key, if there were any. The check needs the file and a public key:

- the record's hash is made anew from its values, so a program may have printed it in another form since;
- the place of the record in the tree follows from its sequence number, which is covered by the hash;
- the path leads from there to the root in the head, and the head is signed by a key that is trusted.

So the record is one that the gateway wrote, as it wrote it, in front of that head. Not proven by this: that
nothing was written beside it. That is what `verify` shows, of the whole log.

The record of a head has no path: its signature is the proof.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.audit.canonical import canonical_form, parse_document
from gateway.audit.head import verify_signature
from gateway.audit.key_changes import MAX_CHANGES, follow
from gateway.audit.merkle import root_by
from gateway.audit.record import FIRST_WITH_TREES, HeadRecord, Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "cachegate-proof"
VERSION = 1
MAX_PATH = 32  # a tree has at most some thousand records, whose paths have ten nodes
_NODE = re.compile(r"[0-9a-f]{64}")
_MEMBERS = {"format", "version", "record", "path", "head"}


class ProofError(ValueError):
    """The file does not prove its record; the text says why."""


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was proven, and the head that covers it."""

    record: Record
    head: HeadRecord
    values: dict[str, Any]  # of the record


def proof_file(
    record: dict[str, Any],
    path: Sequence[bytes],
    head: dict[str, Any],
    changes: Sequence[dict[str, Any]] = (),
) -> bytes:
    """The file: JSON of a form that people can read, which the check does not depend on."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "record": record,
        "path": [node.hex() for node in path],
        "head": head,
        **({"key_changes": list(changes)} if changes else {}),
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def check_proof(raw: bytes, keys: Mapping[str, Ed25519PublicKey]) -> Proven:
    """What the file proves to whoever trusts these keys. Raises `ProofError`."""
    try:
        document = parse_document(raw)
    except ValueError as error:
        raise ProofError(f"not a proof: {error}") from None
    values, head_values, path, changes = _members(document)
    try:
        trusted = follow(keys, changes)
    except ValueError as error:
        raise ProofError(f"a change of the signing key does not verify: {error}") from None
    record, entry = _hashed(values, "record")
    head = _signed_head(head_values, trusted)
    if isinstance(record, HeadRecord):
        if path or canonical_form(values) != canonical_form(head_values):
            raise ProofError("the record is a head, and another one than that which is to prove it")
    else:
        _verify_place(record, entry, path, head)
    return Proven(record=record, head=head, values=values)


def _members(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[bytes], list[Any]]:
    """The parts of a proof, of the right types."""
    if document.get("format") != FORMAT:
        raise ProofError(f"not a proof: its format is not {FORMAT}")
    if document.get("version") != VERSION:
        raise ProofError("a proof of a version that is not known here: take a newer release")
    if not _MEMBERS <= document.keys() <= _MEMBERS | {"key_changes"}:
        raise ProofError("not a proof: it lacks a member, or has one that no proof has")
    record, head, path = document["record"], document["head"], document["path"]
    changes = document.get("key_changes", [])
    is_path = isinstance(path, list) and len(path) <= MAX_PATH
    if not (is_path and all(isinstance(one, str) and _NODE.fullmatch(one) for one in path)):
        raise ProofError("not a proof: its path is no list of hashes")
    is_list = isinstance(changes, list) and len(changes) <= MAX_CHANGES
    if not (isinstance(record, dict) and isinstance(head, dict) and is_list):
        raise ProofError("not a proof: a member is not of the type that it has in a proof")
    return record, head, [bytes.fromhex(one) for one in path], changes


def _hashed(values: dict[str, Any], what: str) -> tuple[Record, bytes]:
    """The record of these values, and its hash, which has to be the one that it carries."""
    try:
        covered = canonical_form({name: value for name, value in values.items() if name != "hash"})
    except ValueError as error:
        raise ProofError(f"the {what} has no canonical form: {error}") from None
    digest = sha256(covered).digest()
    if values.get("hash") != digest.hex():
        raise ProofError(f"the {what} was changed: its values do not have the hash that it carries")
    try:
        record: Record = msgspec.convert(values, Record)
    except msgspec.ValidationError as error:
        raise ProofError(f"the {what} is not of a kind that is known here: {error}") from None
    return record, digest


def _signed_head(values: dict[str, Any], keys: Mapping[str, Ed25519PublicKey]) -> HeadRecord:
    head, _ = _hashed(values, "head")
    if not isinstance(head, HeadRecord):
        raise ProofError("what is to prove the record is no head")
    key = keys.get(head.signer)
    if key is None:
        raise ProofError(f"the head is signed by {head.signer}, which is not a trusted key")
    unsigned = {name: value for name, value in values.items() if name not in {"hash", "signature"}}
    try:
        verify_signature(key, bytes.fromhex(head.signature), canonical_form(unsigned))
    except ValueError:
        raise ProofError("the head was changed: its signature is not of this key over it") from None
    return head


def _verify_place(record: Record, entry: bytes, path: Sequence[bytes], head: HeadRecord) -> None:
    """Raises unless the head's tree has this entry at the place that the record's number says."""
    if head.chain != record.chain:
        raise ProofError(f"the head is of another chain: {head.chain}, and the record of {record.chain}")
    size = head.tree_size
    if head.schema < FIRST_WITH_TREES or size is None or head.tree_root is None:
        raise ProofError("the head has no Merkle root: it proves no single record")
    index = record.seq - (head.seq - size)
    if not 0 <= index < size:
        raise ProofError(
            f"the head covers the records {head.seq - size} to {head.seq - 1} of its chain, and this is "
            f"record {record.seq}"
        )
    try:
        root = root_by(entry, index, size, path)
    except ValueError as error:
        raise ProofError(f"{error}") from None
    if root.hex() != head.tree_root:
        raise ProofError("the path does not lead from this record to the root that the head states")
