"""One round of keeping the audit folder within bounds: pack what is closed, remove what is old.

Retention removes whole segments, the oldest of each chain first, and only

- closed ones of this node's own chains, whose records are older than `keep_seconds`, or the first ones as
  long as the log has more than `keep_bytes`;
- that verify up to their end, against the heads: what was tampered with is evidence, and stays;
- that no consumer still needs (`needs.py`), or that have been due for `wait_seconds` all the same. Before it
  goes past a consumer, it has raised an alarm in a round before: a record, and what the caller makes of the
  result (a log line and a metric).

In this order, so that a kill at any step loses nothing: a signed note on the disk, a record of it under a
signed head, then the files. A file that is noted and still there is removed in the next round.

Blocking, and for one process at a time: the caller holds the lock. It is never run on an event loop.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.event_bodies import RetentionEvent
from gateway.audit.folder import HEADS_NAME, node_of
from gateway.audit.heads_evidence import HeadsEvidence
from gateway.audit.keeping.needs import read_needs
from gateway.audit.keeping.packing import pack_segment
from gateway.audit.keeping.stored import take_inventory
from gateway.audit.notes import MOST_IN_A_NOTE, RETENTION_NAME, Removed, append_note, read_notes
from gateway.audit.packed import DamagedSegmentError
from gateway.audit.reading import digest_of, lines_backward
from gateway.audit.record import parse_link
from gateway.audit.timeline import time_text
from gateway.audit.walk import Walk
from gateway.model.errors import Unavailable
from gateway.model.trusted_files import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from gateway.audit.head import Signer
    from gateway.audit.keeping.needs import Needs
    from gateway.audit.keeping.stored import Inventory, Stored
    from gateway.audit.log import AuditLog
    from gateway.audit.notes import Notes

STATE_NAME = "keeping.json"
LEAST_PACKED_BYTES = 4096  # a smaller file has one block of the disk, packed or not
ALARM_AGAIN_SECONDS = 86_400.0
MOST_STATE_BYTES = 64 << 20


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What the folder is kept to; 0 is no bound."""

    pack_seconds: float | None = 3600.0  # after a segment was closed; None: never
    keep_seconds: float = 0.0
    keep_bytes: int = 0
    wait_seconds: float = 7 * 86_400.0


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a round came to. `waiting` are segments that are due and that consumers still need."""

    packed: int = 0
    saved_bytes: int = 0
    removed: int = 0
    removed_bytes: int = 0
    waiting: int = 0
    waits_for: tuple[str, ...] = ()
    overrun: tuple[str, ...] = ()  # consumers that lost records
    problems: tuple[str, ...] = ()
    bytes: int = 0
    oldest: str | None = None


class _State(msgspec.Struct, kw_only=True):
    """What has to be known from round to round. Losing it makes retention wait longer."""

    due_since: dict[str, float] = {}
    ends: dict[str, tuple[int, str]] = {}  # number and time of the last record of segments that are due
    alarmed_at: dict[str, float] = {}  # consumers
    refused_at: dict[str, float] = {}  # chains that do not verify; they are looked at again the next day


class Keeper:
    """Keeps one folder."""

    def __init__(
        self,
        folder: Path,
        node: str,
        signer: Signer,
        bounds: Bounds,
        open_log: Callable[[], AuditLog],
    ) -> None:
        self._folder = folder
        self._node = node
        self._signer = signer
        self._bounds = bounds
        self._open_log = open_log
        self._problems: list[str] = []
        self._surplus: set[Path] = set()  # segments that are due by the size of the log

    def run(self, now: float) -> Kept:
        """One round. Raises `OSError` when the folder cannot be read, `Unavailable` as the log does."""
        self._problems, self._surplus = [], set()
        packed, saved = self._pack(now)
        retained = self._retain(now)
        inventory = take_inventory(self._folder)
        return msgspec.structs.replace(
            retained,
            packed=packed,
            saved_bytes=saved,
            problems=tuple(self._problems),
            bytes=inventory.bytes,
            oldest=inventory.oldest(),
        )

    # Packing

    def _pack(self, now: float) -> tuple[int, int]:
        count = saved = 0
        if self._bounds.pack_seconds is None:
            return 0, 0
        for one in take_inventory(self._folder).segments:
            is_due = one.written_at <= now - self._bounds.pack_seconds and one.bytes >= LEAST_PACKED_BYTES
            if one.is_packed or not one.is_closed or not is_due:
                continue
            try:
                saved += pack_segment(one.path)
                count += 1
            except (OSError, DamagedSegmentError) as error:
                self._problems.append(f"{one.path.name} was not packed: {error}")
        return count, saved

    # Retention

    def _retain(self, now: float) -> Kept:
        if not (self._bounds.keep_seconds or self._bounds.keep_bytes):
            return Kept()
        notes = self._read_notes()
        self._remove_noted(notes)
        state = self._load_state()
        inventory = take_inventory(self._folder)
        due = self._due(inventory, now)
        names = {one.name for one in due}
        state.due_since = {name: state.due_since.get(name, now) for name in names}
        state.ends = {name: end for name, end in state.ends.items() if name in names}
        if not due:
            self._save_state(state)
            return Kept()
        kept = self._remove_due(due, notes, state, now)
        self._save_state(state)
        return kept

    def _read_notes(self) -> Notes:
        path = self._folder / RETENTION_NAME
        return read_notes(path if path.exists() else None, self._signer.public_keys)

    def _due(self, inventory: Inventory, now: float) -> list[Stored]:
        """The closed segments of this node that are to go, oldest first; of a chain the first ones."""
        bounds, surplus = self._bounds, 0
        if bounds.keep_bytes:
            surplus = inventory.bytes - bounds.keep_bytes
        due: list[Stored] = []
        stays: set[str] = set()  # chains of which an earlier segment stays
        for one in sorted(inventory.segments, key=lambda one: (one.written_at, one.chain, one.number)):
            is_old = bool(bounds.keep_seconds) and one.written_at < now - bounds.keep_seconds
            if (
                one.chain in stays
                or node_of(one.chain) != self._node
                or not one.is_closed
                or not (is_old or surplus > 0)
            ):
                stays.add(one.chain)
                continue
            if surplus > 0:
                self._surplus.add(one.path)
            due.append(one)
            surplus -= one.bytes
        return due

    def _remove_due(self, due: list[Stored], notes: Notes, state: _State, now: float) -> Kept:
        needs = read_needs(self._folder)
        candidates: list[Stored] = []
        waiting: list[Stored] = []
        waits_for: set[str] = set()
        lost_by: dict[Path, set[str]] = {}
        held: set[str] = set()  # chains of which a consumer needs the next segment
        stays = {chain for chain, at in state.refused_at.items() if now - at < ALARM_AGAIN_SECONDS}
        for one in due:
            if one.chain in held:
                waiting.append(one)
            if one.chain in held or one.chain in stays:
                continue
            holders = _holders(needs, one, state)
            is_past = now - state.due_since[one.name] >= self._bounds.wait_seconds
            if holders and not (is_past and holders <= state.alarmed_at.keys()):
                waiting.append(one)
                waits_for |= holders
                held.add(one.chain)
            elif len(candidates) < MOST_IN_A_NOTE:
                candidates.append(one)
                lost_by[one.path] = holders
            else:
                stays.add(one.chain)
        going, refused = self._choose(candidates, notes, now)
        state.refused_at = {
            **{chain: at for chain, at in state.refused_at.items() if now - at < ALARM_AGAIN_SECONDS},
            **{one.chain: now for one in refused},
        }
        self._alarm(waiting, refused, waits_for, state, now)
        overrun = tuple(sorted(set().union(*(lost_by[one.path] for one, _ in going))))
        if going:
            self._remove(going, notes, overrun, now)
        return Kept(
            removed=len(going),
            removed_bytes=sum(one.bytes for one, _ in going),
            waiting=len(waiting),
            waits_for=tuple(sorted(waits_for)),
            overrun=overrun,
        )

    def _choose(
        self, candidates: list[Stored], notes: Notes, now: float
    ) -> tuple[list[tuple[Stored, Removed]], list[Stored]]:
        """Of these, what verifies and is old enough, with what is noted of it; and what does not verify."""
        if not candidates:
            return [], []
        refused: list[Stored] = []
        checked = self._checked(candidates, notes, refused)
        # The times of files can be set by anybody who may write to the folder; those of records cannot.
        oldest_kept = time_text(now - self._bounds.keep_seconds)
        going: list[tuple[Stored, Removed]] = []
        stays: set[str] = set()
        for one in candidates:
            removed = checked.get(one.path)
            is_due = removed is not None and (removed.last_time < oldest_kept or one.path in self._surplus)
            if removed is None or not is_due or one.chain in stays:
                stays.add(one.chain)
                continue
            going.append((one, removed))
        return going, refused

    def _checked(self, due: list[Stored], notes: Notes, refused: list[Stored]) -> dict[Path, Removed]:
        """What is to be noted of each segment that verifies; the others are refused."""
        by_chain: dict[str, list[Stored]] = {}
        for one in due:
            by_chain.setdefault(one.chain, []).append(one)
        checked: dict[Path, Removed] = {}
        heads = self._folder / HEADS_NAME
        with HeadsEvidence(heads if heads.exists() else None, self._signer.public_keys) as evidence:
            evidence.read()
            for chain, stored in by_chain.items():
                found = self._walk(chain, sorted(stored, key=lambda one: one.number), notes, evidence)
                for one in stored:
                    if one.path in found:
                        checked[one.path] = found[one.path]
                    else:
                        refused.append(one)
            if evidence.problems or notes.problems:
                self._problems += [*evidence.problems, *notes.problems]
                refused += [one for one in due if one.path in checked]
                return {}
        return checked

    def _walk(
        self, chain: str, stored: list[Stored], notes: Notes, evidence: HeadsEvidence
    ) -> dict[Path, Removed]:
        walk = Walk(chain, self._signer.public_keys, evidence)
        try:
            walk.run([(one.number, one.path) for one in stored], removed=notes, is_part=not stored[-1].is_end)
            if stored[-1].is_end:
                walk.compare()
            report = walk.report()
        except Unavailable as failure:
            self._problems.append(str(failure))
            return {}
        if report.fault is not None or report.missing_segments:
            fault = report.fault
            why = f"segments are missing in front of {stored[0].path.name}"
            if fault is not None:
                why = f"{fault.file}, line {fault.line}: {fault.damage}: {fault.why}"
            self._problems.append(f"not removed, as it does not verify: {why}")
            return {}
        found = {}
        for one in stored:
            reached = walk.reached.get(one.number)
            if reached is None:
                continue
            digest, size = digest_of(one.path)
            found[one.path] = Removed(
                chain=chain,
                segment=one.number,
                first_seq=reached.first_seq,
                last_seq=reached.last_seq,
                last_time=reached.last_time,
                last_hash=reached.last_hash,
                bytes=size,
                sha256=digest,
                trace=reached.trace.hex(),
                head=msgspec.Raw(reached.head_line),
                is_end=one.is_end,
            )
        return found

    def _alarm(
        self, waiting: list[Stored], refused: list[Stored], waits_for: set[str], state: _State, now: float
    ) -> None:
        """Record that segments are due and stay, once a day for each cause."""
        state.alarmed_at = {
            name: at
            for name, at in state.alarmed_at.items()
            if name in waits_for or now - at < ALARM_AGAIN_SECONDS + self._bounds.wait_seconds
        }
        news = {name for name in waits_for if now - state.alarmed_at.get(name, 0.0) >= ALARM_AGAIN_SECONDS}
        if not news and not refused:
            return
        log = self._open_log()
        try:
            if news:
                log.note_retention(
                    _event("waiting", self._why(), waiting, consumers=tuple(sorted(waits_for)))
                )
                state.alarmed_at |= dict.fromkeys(news, now)
            if refused:
                log.note_retention(_event("refused", "they do not verify", refused))
        finally:
            log.close()

    def _why(self) -> str:
        bounds = self._bounds
        said = [f"older than {bounds.keep_seconds / 86_400:g} days"] if bounds.keep_seconds else []
        said += [f"beyond {bounds.keep_bytes} bytes"] if bounds.keep_bytes else []
        return " or ".join(said)

    def _remove(
        self, going: list[tuple[Stored, Removed]], notes: Notes, overrun: tuple[str, ...], now: float
    ) -> None:
        going = sorted(
            going, key=lambda pair: (pair[0].chain, pair[0].number)
        )  # a chain loses its start first
        digest = append_note(
            self._folder,
            self._signer,
            prev=notes.last,
            time=time_text(now),
            node=self._node,
            why=self._why(),
            overrun=overrun,
            removed=[removed for _, removed in going],
        )
        until = max(removed.last_time for _, removed in going)
        stored = [one for one, _ in going]
        log = self._open_log()
        try:
            log.note_retention(
                _event("removing", self._why(), stored, until=until, consumers=overrun, note=digest)
            )
        finally:
            log.close()
        for one in stored:
            one.path.unlink(missing_ok=True)
        sync_folder(self._folder)

    def _remove_noted(self, notes: Notes) -> None:
        """Remove what a note says was removed: the round that wrote it was killed."""
        if notes.problems:
            return
        for one in take_inventory(self._folder).segments:
            removed = notes.segments.get(one.chain, {}).get(one.number)
            if removed is None:
                continue
            with suppress(OSError, DamagedSegmentError):
                if digest_of(one.path) == (removed.sha256, removed.bytes):
                    one.path.unlink()
                    continue
            self._problems.append(f"{one.path.name} was removed by retention, and is there again, changed")

    # State

    def _load_state(self) -> _State:
        path = self._folder / STATE_NAME
        try:
            if not path.is_file() or path.stat().st_size > MOST_STATE_BYTES:
                return _State()
            return msgspec.json.decode(path.read_bytes(), type=_State)
        except (OSError, msgspec.DecodeError):
            return _State()

    def _save_state(self, state: _State) -> None:
        path = self._folder / STATE_NAME
        partial = path.with_suffix(".partial")
        descriptor = os.open(
            partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(state))
        partial.replace(path)


def _holders(needs: dict[str, Needs], one: Stored, state: _State) -> set[str]:
    """The consumers that still need a segment, by its last record, which is read once."""
    if not needs:
        return set()
    if one.name not in state.ends:
        state.ends[one.name] = _last_record(one)
    last_seq, last_time = state.ends[one.name]
    return {name for name, own in needs.items() if own.needs(one.chain, last_seq, last_time)}


def _last_record(one: Stored) -> tuple[int, str]:
    for _, line in lines_backward(one.path):
        with suppress(ValueError):
            link = parse_link(line)
            return link.seq, link.time
        break
    return 1 << 62, "~"  # it does not parse: needed by everybody, and refused later


def _event(
    state: str,
    why: str,
    stored: Iterable[Stored],
    *,
    until: str | None = None,
    consumers: tuple[str, ...] = (),
    note: str | None = None,
) -> RetentionEvent:
    listed = list(stored)
    return RetentionEvent(
        state=state,
        why=why,
        segments=len(listed),
        bytes=sum(one.bytes for one in listed),
        until=until,
        consumers=consumers,
        note=note,
    )
