"""What commands do with the evidence beside verifying it: proofs, time stamps, another key."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from gateway.adapters.clock import SystemClock
from gateway.adapters.time_stamps import fetch_stamp, load_roots, verify_stamp
from gateway.assembly.components import build_recorder
from gateway.assembly.signing import Replaced, replace_signing_key
from gateway.audit.anchors import Anchor, CheckedAnchor, append_anchor, check_anchors, find_end, stamped_text
from gateway.audit.proof_search import Unproven, prove
from gateway.audit.record import AnchorRecord
from gateway.audit.timeline import time_text
from gateway.model.errors import BadNameError, Conflict, Misconfigured, Reason, Unavailable, UnknownName
from gateway.model.verdicts import Change
from gateway.operations.session import actor
from gateway.operations.state_folder import verify_state

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.configuration.settings import Settings


class Anchored(msgspec.Struct, frozen=True, kw_only=True):
    """The heads up to here were stamped."""

    authority: str
    stamped_at: datetime
    listed_bytes: int
    listed_hash: str
    record_id: str


def make_proof(folder: Path, record_id: str) -> bytes:
    """The proof of a record of this folder.

    Raises `UnknownName` when there is no such record, `Conflict` when it has no proof, or none yet.
    """
    now = SystemClock().now()
    try:
        proof = prove(folder, record_id, now=now) or prove(folder, record_id, now=now, is_bounded=False)
    except ValueError as error:
        raise BadNameError(str(error)) from error
    if proof is None:
        raise UnknownName("record", record_id, f"{folder} has none; each node keeps its own records")
    if isinstance(proof, Unproven):
        raise Conflict(f"{record_id} has no proof: {proof.why}")
    return proof


def anchor_heads(settings: Settings, url: str, roots_file: Path) -> Anchored:
    """Have the heads stamped up to the last one that is listed, keep the stamp, and record that."""
    verify_state(settings)
    roots = load_roots(_read(roots_file), str(roots_file))
    folder = settings.audit_folder
    end = find_end(folder)
    stamp, stamped_at = fetch_stamp(url, stamped_text(end), roots)
    try:
        append_anchor(folder, Anchor(listed_bytes=end.size, listed_hash=end.hash, authority=url, stamp=stamp))
    except OSError as error:
        why = f"the stamp cannot be written ({error.strerror})"
        raise Unavailable("audit", f"{folder}: {why}", Reason.NO_AUDIT) from error
    recorder = build_recorder(settings, SystemClock())
    try:
        at = time_text(stamped_at.astimezone(UTC).timestamp())
        record_id = recorder.note(
            AnchorRecord, listed_bytes=end.size, listed_hash=end.hash, authority=url, stamped_at=at
        )
    finally:
        recorder.close()
    return Anchored(
        authority=url,
        stamped_at=stamped_at,
        listed_bytes=end.size,
        listed_hash=end.hash,
        record_id=record_id,
    )


def check_stamps(folder: Path, roots_file: Path) -> tuple[CheckedAnchor, ...]:
    """Check every stamp of an audit folder, or of a copy."""
    roots = load_roots(_read(roots_file), str(roots_file))
    return check_anchors(folder, partial(verify_stamp, roots=roots))


def rotate_key(settings: Settings) -> Replaced:
    """Have another key sign heads from now on. The change is recorded, by the old key, before it is made."""
    verify_state(settings)
    clock = SystemClock()
    recorder = build_recorder(settings, clock)
    try:
        receipt = recorder.change(Change(actor=actor(), action="audit.rotate-key", received_at=clock.now()))
        try:
            replaced = replace_signing_key(
                settings.signing_key_file, settings.audit_folder, time_text(clock.now())
            )
        except BaseException:
            receipt.close(generation=None, result="failed")
            raise
        receipt.close(generation=None, result=f"{replaced.old} replaced by {replaced.new}")
    finally:
        recorder.close()
    return replaced


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read ({error.strerror})") from error
