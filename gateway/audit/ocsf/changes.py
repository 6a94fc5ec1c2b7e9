"""Changes as OCSF events: keys and tenants are accounts, grants are privileges, the rest are entities.

A change is recorded before it is made, and its outcome has a record of its own, which says no more of the
change than whose it is: its `correlation_uid` is the id of the change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.audit.ocsf.event import OTHER, OcsfClass, Severity, event_of, present, user_of

if TYPE_CHECKING:
    from typing import Final

    from gateway.audit.record import ChangeOutcomeRecord, ChangeRecord, RefusedChangeRecord

_DONE, _FAILED, _UNKNOWN = 1, 2, 0  # status_id
_ACCOUNTS: Final = frozenset({"keys", "tenants", "bindings", "removal"})
_PRIVILEGES: Final = {"grants.add": 1, "grants.create": 1, "grants.remove": 2, "grants.remove-named": 2}
_ACCOUNT_ACTIVITIES: Final = {
    **dict.fromkeys(("create", "import", "make", "restore"), 1),
    **dict.fromkeys(("enable", "resume"), 2),
    **dict.fromkeys(("disable", "suspend"), 5),
    **dict.fromkeys(("remove", "revoke", "revoke-found", "close", "forget", "report"), 6),
}
_ENTITY_ACTIVITIES: Final = {
    **dict.fromkeys(("create", "add", "alias", "pin", "attest", "publish", "own", "import"), 1),
    **dict.fromkeys(
        ("change", "apply", "move", "aliases", "groups", "group", "rotate", "rotate-key", "keys", "accept"), 3
    ),
    **dict.fromkeys(("remove", "unalias", "purge-resolutions", "disown", "unpublish"), 4),
}
_UPDATE: Final = 3


def of_change(record: ChangeRecord, line: bytes | None) -> dict[str, Any]:
    """A change that is about to be made. Whether it was is in the event of its outcome."""
    return _of_change(record, "change", line, status_id=_UNKNOWN, message=f"{record.actor}: {record.action}")


def of_refused_change(record: RefusedChangeRecord, line: bytes | None) -> dict[str, Any]:
    """A change that was not made, because whoever asked for it may not."""
    return _of_change(
        record,
        "refused-change",
        line,
        severity=Severity.MEDIUM,
        status_id=_FAILED,
        status_code=record.reason,
        message=f"{record.actor}: {record.action}: refused",
    )


def of_change_outcome(record: ChangeOutcomeRecord, line: bytes | None) -> dict[str, Any]:
    """How a change ended."""
    common: dict[str, Any] = {
        "correlation": record.change_id,
        "status_id": _FAILED if record.generation is None else _DONE,
        "status_detail": record.result,
        "unmapped": present(generation=record.generation, before=record.before, after=record.after),
    }
    if record.key_id is not None:
        user = user_of(record.key_id, record.tenant, record.tenant_record)
        return event_of(record, "change-outcome", line, OcsfClass.ACCOUNT_CHANGE, OTHER, user=user, **common)
    entity = {"uid": record.change_id, "type": "change", "type_id": OTHER}
    return event_of(record, "change-outcome", line, OcsfClass.ENTITY, OTHER, entity=entity, **common)


def _of_change(
    record: ChangeRecord | RefusedChangeRecord, kind: str, line: bytes | None, **common: Any
) -> dict[str, Any]:
    group, _, verb = record.action.partition(".")
    tenant_record = getattr(record, "tenant_record", None)
    user = user_of(record.key_id, record.tenant, tenant_record)
    common |= {
        "actor": {"user": {"name": record.actor}},
        "activity_name": record.action,
        "unmapped": present(action=record.action, actor=record.actor, subject=[*record.subject]),
    }
    if record.action in _PRIVILEGES:
        return event_of(
            record,
            kind,
            line,
            OcsfClass.USER_ACCESS,
            _PRIVILEGES[record.action],
            user=user,
            privileges=[*record.subject] or [record.action],
            **common,
        )
    if group in _ACCOUNTS:
        activity = _ACCOUNT_ACTIVITIES.get(verb, OTHER)
        return event_of(record, kind, line, OcsfClass.ACCOUNT_CHANGE, activity, user=user, **common)
    return event_of(
        record,
        kind,
        line,
        OcsfClass.ENTITY,
        _ENTITY_ACTIVITIES.get(verb, OTHER),
        entity={
            "name": " ".join(record.subject) or group or record.action or kind,
            "type": group or "change",
            "type_id": OTHER,
        },
        **common,
    )
