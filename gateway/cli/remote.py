"""Commands through a running gateway, where CACHEGATE_URL and CACHEGATE_ADMIN_KEY say so.

The gateway carries out the same operations that a command carries out on the state folder. What comes back is
shown as the command shows its own.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from gateway.configuration.sources import load_gateway
from gateway.identity.new_keys import KeyState
from gateway.model.facts import KeyKind, Role, Scope
from gateway.model.periods import PeriodState
from gateway.operations.listings import GrantView, KeyView, TenantView, state_of
from gateway.terminal.console import Line, Note, show, showing_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.adapters.admin_client import AdminClient

LOCAL = "This command works on the state folder and the Redis of this machine, whatever CACHEGATE_URL says"
WHY_LOCAL = {
    "keys import": "the key of another system stays on this machine",
    "keys identify": "a found token stays on this machine",
    "keys rotations": "through the gateway, `keys list --state rotating` has the old keys",
    "grants remove": "it takes parts of grants away; the gateway takes whole ones, by their ids",
    "tenants": "the gateway changes what a tenant may by PATCH, for the state that you have seen",
    "models": "it takes many patterns at once, with --force; the gateway takes a rule for each",
    "bindings": "it tells by which rules of the policy folder a binding is in force",
    "explain": "it looks at the cache of this machine",
    "cache": "it looks at the cache of this machine",
    "doctor": "it looks at this machine",
    "policy": "it works on this machine's policy folder, whose cases are run before it is applied",
    "audit": "the log is this machine's; `audit follow` reads all nodes through the gateway",
    "tokens": "the keys that sign tokens are in the state folder, and no gateway gives them away",
    "distrust": "it ends what this state folder's secrets have signed",
    "directory": "it works on the server of the facts as a whole",
}
"""Why a command stays local, or a group of commands: the longest name that its own begins with counts."""


def find_gateway() -> AdminClient | None:
    """The gateway that commands go through; None where they work on the state folder."""
    named = load_gateway()
    if named is None:
        return None
    # Only these commands need an HTTP client.
    from gateway.adapters.admin_client import AdminClient  # noqa: PLC0415

    return AdminClient(*named)


def why_local(command: str) -> str:
    """What is said of a command, named as it is typed after `cachegate`, that goes through no gateway."""
    words = command.split()
    names = (" ".join(words[:count]) for count in range(len(words), 0, -1))
    why = next((WHY_LOCAL[name] for name in names if name in WHY_LOCAL), None)
    return f"{LOCAL}." if why is None else f"{LOCAL}: {why}."


def show_made(
    changed: Mapping[str, Any],
    *,
    no_wait: bool,
    as_json: bool,
    named: str = "key_id",
    **details: object,
) -> None:
    """Show what came of a change; `named` is how scripts know the id of what it is about.

    A new key goes to standard output alone, so that a pipe gets it.
    """
    token = changed.get("token")

    def shown() -> Iterator[Note | Line]:
        yield from map(Note, changed["messages"])
        if changed["sure"]:
            yield Note(
                f"True in all workers ({changed['workers']}) after {changed['milliseconds']:.1f} ms, "
                f"generation {changed['generation']}."
            )
        else:
            yield Note(f"Not sure before {changed['sure_at'] or 'it is said otherwise'}.", "bold yellow")
        if token is not None:
            yield Note("This is the key. It is shown once and stored nowhere:", "bold")
            yield Line(token)

    told = {name: value for name, value in changed.items() if name not in {"id", "note", "replayed"}}
    document = {named: changed["id"], **details, **told}
    with nullcontext() if token is None else showing_key(str(changed["id"])):
        show(document, shown(), as_json=as_json, is_yes=changed["sure"] or no_wait)


def key_view(key: Mapping[str, Any]) -> KeyView:
    """A key, as commands show it. The gateway does not tell under which pepper it is stored."""
    return KeyView(
        key_id=key["id"],
        kind=KeyKind(key["kind"]),
        tenant=key["tenant"],
        tenant_record=key["tenant_record"],
        name=key["name"],
        state=KeyState(key["state"]),
        role=None if key["role"] is None else Role(key["role"]),
        scopes=[Scope(one) for one in key["scopes"]],
        networks=tuple(key["networks"]),
        created_at=key["created_at"],
        not_before=key["not_before"],
        expires_at=key["expires_at"],
        revoked_at=key["revoked_at"],
        revoked_for=key["revoked_for"],
        disabled_at=key["disabled_at"],
        replaces=key["replaces"],
        replaced_by=key["replaced_by"],
        last_used_at=key["last_used_at"],
        last_used_network=key["last_used_network"],
        pepper="-",
        source=key["source"],
    )


def tenant_view(tenant: Mapping[str, Any]) -> TenantView:
    """A tenant, as commands show it."""
    return TenantView(
        tenant=tenant["id"],
        name=tenant["name"],
        state=state_of(is_suspended=tenant["suspended"], is_being_removed=tenant["being_removed"]),
        degraded_seconds=tenant["degraded_seconds"],
        image_hosts=tuple(tenant["image_hosts"]),
        allows=tuple(tenant["allows"]),
        created_at=tenant["created_at"],
        generation=tenant["generation"],
        source=tenant["source"],
        record_id=tenant["record"],
    )


def grant_view(grant: Mapping[str, Any]) -> GrantView:
    """A grant, as commands show it."""
    return GrantView(
        tenant=grant["tenant"],
        grant_id=grant["grant_id"],
        models=tuple(grant["models"]),
        groups=tuple(grant["groups"]),
        packages=tuple(grant["packages"]),
        actions=list(grant["actions"]),
        source=grant["source"],
        state=PeriodState(grant["state"]),
        not_before=grant["not_before"],
        expires_at=grant["expires_at"],
    )
