"""Operations: what an operator can do to the facts, each with what must hold for it.

An operation is an `async def` over `Changes`, run by `changes.change` in one transaction, so that
what it checked still holds when it is committed. It raises `Conflict` with a sentence that says what
stands in the way and what to do; otherwise it returns an `Effect`. Doing a thing twice is allowed
and says that nothing changed.

Facts that the policy folder wrote are refused to commands unless `force` is given: the next
`policy apply` would undo the change, or refuse to run because of it. Suspending a tenant is the
exception: what an incident needs is never refused.

Non-goals: parsing what an operator typed, reading the clock, making keys, and the audit log.
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
