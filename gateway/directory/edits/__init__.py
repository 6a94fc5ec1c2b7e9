"""Edits: the changes that operators and workers make to the facts, each with its preconditions.

An edit is an `async def` over `Changes`, run by `changes.change` in one transaction, so that its
preconditions still hold when it is committed. It raises `Conflict` with a sentence that says what prevents it
and what to do; otherwise it returns an `Effect`. Repeating an edit is allowed and reports that nothing
changed.

Facts of the policy folder cannot be edited by commands unless `force` is given: the next `policy apply` would
undo the edit, or refuse to run because of it. Suspending a tenant is the exception, because it is needed in
an incident.

Non-goals: parsing an operator's input, reading the clock, making keys, and the audit log.
"""

from __future__ import annotations

from gateway.directory.edits.effect import Effect
from gateway.directory.edits.grants import add_grants, remove_grants
from gateway.directory.edits.keys import (
    MAX_OVERLAP_SECONDS,
    create_key,
    heir_of,
    import_key,
    revoke_key,
    rotate_key,
)
from gateway.directory.edits.models import (
    add_alias,
    add_to_group,
    disown,
    own,
    publish,
    remove_alias,
    remove_from_group,
    unpublish,
)
from gateway.directory.edits.peppers import find_pepper_not_held, remember_peppers
from gateway.directory.edits.pins import pin_blobs, quarantine_blob, release_blob
from gateway.directory.edits.tenants import create_tenant, resume_tenant, set_degraded, suspend_tenant

__all__ = [
    "MAX_OVERLAP_SECONDS",
    "Effect",
    "add_alias",
    "add_grants",
    "add_to_group",
    "create_key",
    "create_tenant",
    "disown",
    "find_pepper_not_held",
    "heir_of",
    "import_key",
    "own",
    "pin_blobs",
    "publish",
    "quarantine_blob",
    "release_blob",
    "remember_peppers",
    "remove_alias",
    "remove_from_group",
    "remove_grants",
    "resume_tenant",
    "revoke_key",
    "rotate_key",
    "set_degraded",
    "suspend_tenant",
    "unpublish",
]
