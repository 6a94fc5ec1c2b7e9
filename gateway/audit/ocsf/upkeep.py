"""What the gateway says of itself and of its log, as OCSF events.

Workers are Application Lifecycle, a quarantined blob is a Detection Finding, and what is about the log itself
(its chains, heads, gaps, retention, time stamps, exports) is Event Log Activity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.audit.ocsf.event import (
    OTHER,
    PRODUCT,
    OcsfClass,
    Severity,
    event_of,
    fingerprints,
    milliseconds_of,
    present,
)

if TYPE_CHECKING:
    from typing import Final

    from gateway.audit.record import (
        AnchorRecord,
        ExportRecord,
        GapRecord,
        HeadRecord,
        ModeRecord,
        OpenRecord,
        QuarantineRecord,
        RetentionRecord,
        WorkerRecord,
    )

_DONE, _FAILED, _IN_PROGRESS = 1, 2, 99  # status_id
_WORKER_ACTIVITIES: Final = {"started": 3, "stopped": 4}
_ENABLED, _DISABLED = 6, 7
_DELETE, _EXPORT, _START = 2, 3, 6  # activities of Event Log Activity
_CREATE: Final = 1
_QUARANTINED: Final = 3
_REGULAR_FILE: Final = 1
_APPLICATION_LOG: Final = 2


def of_worker(record: WorkerRecord, line: bytes | None) -> dict[str, Any]:
    """A worker began to serve, or stopped in order."""
    return event_of(
        record,
        "worker",
        line,
        OcsfClass.LIFECYCLE,
        _WORKER_ACTIVITIES.get(record.state, OTHER),
        app={"name": PRODUCT, "version": record.version, "feature": {"name": "worker", "uid": record.worker}},
        message=f"worker {record.worker} {record.state}",
        unmapped={"worker": record.worker, "state": record.state},
    )


def of_mode(record: ModeRecord, line: bytes | None) -> dict[str, Any]:
    """A worker lost its lease on the facts, or has one again."""
    is_normal = record.mode == "normal"
    return event_of(
        record,
        "mode",
        line,
        OcsfClass.LIFECYCLE,
        _ENABLED if is_normal else _DISABLED,
        severity=Severity.INFORMATIONAL if is_normal else Severity.HIGH,
        app={"name": PRODUCT, "feature": {"name": "worker", "uid": record.worker}},
        message=f"worker {record.worker}: {record.mode}",
        unmapped=present(worker=record.worker, mode=record.mode, generation=record.generation),
    )


def of_quarantine(record: QuarantineRecord, line: bytes | None) -> dict[str, Any]:
    """A blob is not served any more: its content is not what it was."""
    file = present(
        name=record.md5 or "unknown",
        type_id=_REGULAR_FILE,
        hashes=fingerprints(sha256=record.found),
    )
    return event_of(
        record,
        "quarantine",
        line,
        OcsfClass.DETECTION,
        _CREATE,
        severity=Severity.HIGH,
        profiles=("security_control",),
        finding_info={"uid": record.id, "title": "The content of a blob is not what its name or pin says"},
        evidences=[{"file": file}],
        disposition_id=_QUARANTINED,
        status_id=_CREATE,
        unmapped=present(md5=record.md5, found=record.found, pinned=record.pinned, source=record.source),
    )


def of_gap(record: GapRecord, line: bytes | None) -> dict[str, Any]:
    """A time in which nothing could be recorded, and nothing was served."""
    return event_of(
        record,
        "gap",
        line,
        OcsfClass.EVENT_LOG,
        OTHER,
        severity=Severity.HIGH,
        activity_name="gap",
        **_log(record.chain),
        start_time=milliseconds_of(record.since),
        end_time=milliseconds_of(record.until),
        status_id=_FAILED,
        status_detail=record.why,
        unmapped={"since": record.since, "until": record.until, "refused": record.refused},
    )


def of_retention(record: RetentionRecord, line: bytes | None) -> dict[str, Any]:
    """What retention does with old segments."""
    is_removing = record.state == "removing"
    return event_of(
        record,
        "retention",
        line,
        OcsfClass.EVENT_LOG,
        _DELETE if is_removing else OTHER,
        severity=Severity.INFORMATIONAL if is_removing else Severity.MEDIUM,
        activity_name=f"retention: {record.state}",
        **_log(record.chain),
        status_id=_DONE if is_removing else _FAILED,
        status_detail=record.why,
        unmapped=present(
            state=record.state,
            segments=record.segments,
            bytes=record.bytes,
            until=record.until,
            consumers=[*record.consumers],
            note=record.note,
        ),
    )


def of_anchor(record: AnchorRecord, line: bytes | None) -> dict[str, Any]:
    """The heads up to here were time-stamped."""
    return event_of(
        record,
        "anchor",
        line,
        OcsfClass.EVENT_LOG,
        OTHER,
        activity_name="anchor",
        **_log("heads.jsonl"),
        status_id=_DONE,
        unmapped={
            "authority": record.authority,
            "stamped_at": record.stamped_at,
            "listed_bytes": record.listed_bytes,
            "listed_hash": record.listed_hash,
        },
    )


def of_export(record: ExportRecord, line: bytes | None) -> dict[str, Any]:
    """Records are passed on to a consumer."""
    is_over = record.state == "ended"
    return event_of(
        record,
        "export",
        line,
        OcsfClass.EVENT_LOG,
        _EXPORT,
        activity_name=f"export {record.state}",
        **_log(record.chain),
        status_id=_IN_PROGRESS if not is_over else _FAILED if record.reason else _DONE,
        status_detail=record.reason,
        unmapped=present(
            target=record.target, state=record.state, records=record.records, reason=record.reason
        ),
    )


def of_open(record: OpenRecord, line: bytes | None) -> dict[str, Any]:
    """The start of a chain, or of writing after a fault."""
    return event_of(
        record,
        "open",
        line,
        OcsfClass.EVENT_LOG,
        _START,
        severity=Severity.INFORMATIONAL if record.after_chain is None else Severity.MEDIUM,
        **_log(record.chain),
        status_detail=record.reason,
        unmapped=present(
            reason=record.reason,
            after_chain=record.after_chain,
            after_seq=record.after_seq,
            after_hash=record.after_hash,
        ),
    )


def of_head(record: HeadRecord, line: bytes | None) -> dict[str, Any]:
    """A signed statement of how far a chain goes. The signature is in `raw_data`."""
    return event_of(
        record,
        "head",
        line,
        OcsfClass.EVENT_LOG,
        OTHER,
        severity=Severity.INFORMATIONAL if record.unproven_from is None else Severity.MEDIUM,
        activity_name=f"head: {record.state}",
        **_log(record.chain),
        unmapped=present(
            state=record.state,
            segment=record.segment,
            signer=record.signer,
            unproven_from=record.unproven_from,
            tree_root=record.tree_root,
            tree_size=record.tree_size,
        ),
    )


def _log(name: str) -> dict[str, Any]:
    return {"log_name": name, "log_provider": PRODUCT, "log_type_id": _APPLICATION_LOG}
