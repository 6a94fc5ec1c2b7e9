"""`cachegate tenants remove`, `restore` and `removed`: off-boarding, shown before it is done."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.cli import remote_tenants
from gateway.cli.perform import barrier_document, barrier_notes, in_session, is_sure
from gateway.cli.remote import find_gateway
from gateway.identity.times import format_duration, parse_duration
from gateway.model.errors import Misconfigured
from gateway.model.names import parse_tenant_id
from gateway.operations.removal import (
    RESTORABLE_SECONDS,
    list_removed,
    plan_removal,
    remove_tenant,
    restore_tenant,
)
from gateway.terminal.console import AsJson, Note, Table, show
from gateway.terminal.progress import readable_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.barrier import BarrierReport
    from gateway.operations.removal import RemovalPlan, Removed, Restored

TenantArgument = Annotated[str, typer.Argument(metavar="ID", help="The tenant's id.")]
MAX_LISTED = 20  # names in one cell; the rest is counted


def remove(
    tenant: TenantArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it takes, change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    restorable: Annotated[
        str, typer.Option(help="For how long it can be restored: 0s to 90d.")
    ] = format_duration(RESTORABLE_SECONDS),
    as_json: AsJson = False,
) -> None:
    """Show what removing a tenant takes, ask, and do it: keys, rights, models, and others' rights on them.

    Its keys are refused from the first step on. Run it again where it was interrupted: it goes on. Its name
    is free afterwards, and who gets it inherits nothing. Exit status 1 where the policy folder is in the way.
    """
    if as_json and not yes and not dry_run:
        raise Misconfigured("tenants remove", "--json asks nobody; say --yes, or --dry-run to look only")
    tenant_id, seconds = parse_tenant_id(tenant), parse_duration(restorable)
    gateway = find_gateway()
    if dry_run or not yes:
        if gateway is not None:
            plan = remote_tenants.plan_removal(gateway, tenant_id, seconds)
        else:
            plan = in_session(lambda session: plan_removal(session, tenant_id, seconds))
        if dry_run or plan.in_the_way or not sys.stdin.isatty():
            is_yes = dry_run and not plan.in_the_way
            notes = [] if dry_run or plan.in_the_way else [Note("Nothing was changed: say --yes.", "yellow")]
            show(plan, _shown_plan(plan), as_json=as_json, notes=notes, is_yes=is_yes)
            return
        show(plan, _shown_plan(plan), as_json=False)
        if not typer.confirm(f"Remove tenant {tenant_id}?", err=True):
            raise typer.Exit(1)
    if gateway is not None:
        removed = remote_tenants.remove_tenant(gateway, tenant_id, seconds)
    else:
        removed = in_session(lambda session: remove_tenant(session, tenant_id, seconds))
    document = _with_barrier(removed, removed.barrier)
    show(document, _shown_removed(removed), as_json=as_json, is_yes=is_sure(removed.barrier))


def restore(
    tenant: TenantArgument,
    removal: Annotated[str | None, typer.Option(help="Which removal, if there are several.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give back what removing a tenant took. Its keys and bindings stay revoked: create new keys.

    What somebody else has meanwhile is left to them. Exit status 1 where something was not given back.
    """
    tenant_id = parse_tenant_id(tenant)
    if (gateway := find_gateway()) is not None:
        restored = remote_tenants.restore_tenant(gateway, tenant_id, removal)
    else:
        restored = in_session(lambda session: restore_tenant(session, tenant_id, removal))
    document = _with_barrier(restored, restored.barrier)
    is_yes = is_sure(restored.barrier) and not restored.left
    show(document, _shown_restored(restored), as_json=as_json, is_yes=is_yes)


def removed(as_json: AsJson = False) -> None:
    """List the tenants that were removed, and until when each can be restored."""
    gateway = find_gateway()
    found = in_session(list_removed) if gateway is None else remote_tenants.list_removed(gateway)
    rows = (
        (
            one.tenant,
            one.record_id,
            one.stage,
            one.started_at,
            one.restorable_until or "no more",
            one.removal_id,
        )
        for one in found
    )
    columns = ("tenant", "record", "stage", "since", "restorable until", "removal")
    show(found, [Table("Removed tenants", columns, rows, "No tenant was removed.")], as_json=as_json)


def _with_barrier(result: Removed | Restored, barrier: BarrierReport | None) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(result)
    return {**document, "barrier": None, **barrier_document(barrier)}


def _shown_plan(plan: RemovalPlan) -> Iterator[Note | Table]:
    others = [f"{one.tenant}: {_listed(one.grants)}" for one in plan.grants_of_others]
    rows = [
        ("tenant", plan.tenant),
        ("name", plan.name),
        ("record", plan.record_id or "without an id"),
        ("keys to revoke", str(plan.keys)),
        ("bindings to revoke", str(plan.bindings)),
        ("loses grants", _listed(plan.grants)),
        ("no longer owns", _listed(plan.patterns)),
        ("others lose", _lines(others)),
        ("aliases", _listed(plan.aliases)),
        ("groups", _listed(plan.groups)),
        ("workflows lose", _listed(plan.allows)),
        ("restorable for", format_duration(plan.restorable_seconds)),
    ]
    yield Table(f"Removing tenant {plan.tenant}", ("", ""), rows)
    yield from _shown_rest(plan)
    if plan.is_resumed:
        yield Note("A removal of it was begun and did not end; it goes on.", "yellow")
    for reason in plan.in_the_way:
        yield Note(f"in the way: {reason}", "bold red")


def _shown_rest(plan: RemovalPlan) -> Iterator[Note | Table]:
    """What stays, for the operator to look after."""
    rows = [
        (one.model, one.packages, one.files, readable_size(one.bytes), readable_size(one.shared_bytes))
        for one in plan.on_disk[:MAX_LISTED]
    ]
    if rows:
        title = f"Stays on disk: {readable_size(plan.bytes_on_disk)} of {len(plan.on_disk)} models"
        yield Table(title, ("model", "packages", "files", "size", "shared with others"), rows)
    for grant in plan.wider_grants[:MAX_LISTED]:
        yield Note(f"stays: the grant {grant}, on a pattern that covers models of others too", "yellow")
    for server in plan.servers:
        yield Note(
            f"stays: CACHEGATE_INFERENCE_URL binds {server} to the name {plan.tenant}; a new tenant of this "
            "name would get it",
            "yellow",
        )


def _shown_removed(removed: Removed) -> Iterator[Note | Table]:
    yield Note(
        f"tenant {removed.plan.tenant} is removed: {removed.keys} keys and {removed.bindings} bindings "
        "revoked, "
        f"{removed.grants} grants, {removed.patterns} patterns and {removed.aliases} aliases taken, "
        f"{removed.grants_of_others} grants of others on its models ended"
    )
    for pattern in removed.kept_closed:
        yield Note(
            f"{pattern} stays closed, since a broader pattern would open it; `cachegate models disown "
            f"{removed.plan.tenant} {pattern}` and `models publish` or `own` when that is meant",
            "yellow",
        )
    yield from _shown_rest(removed.plan)
    if not removed.plan.restorable_seconds:
        yield Note("It cannot be restored.")
        yield from barrier_notes(removed.barrier)
        return
    yield Note(
        f"It can be restored until {removed.restorable_until}: cachegate tenants restore "
        f"{removed.plan.tenant}"
    )
    yield from barrier_notes(removed.barrier)


def _shown_restored(restored: Restored) -> Iterator[Note]:
    yield Note(f"tenant {restored.tenant} is restored: {restored.facts} facts given back")
    for left in restored.left:
        yield Note(f"not given back: {left}", "yellow")
    yield Note(
        f"Its {restored.keys} keys and {restored.bindings} bindings stay revoked; "
        f"new keys: cachegate keys create --tenant {restored.tenant}"
    )
    yield from barrier_notes(restored.barrier)


def _listed(names: Sequence[str]) -> str:
    return _lines(list(names))


def _lines(lines: list[str]) -> str:
    more = [f"and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
    return "\n".join([*lines[:MAX_LISTED], *more]) or "none"
