"""Print keys: a new one with its token, known ones with their state and last use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.cli.barrier_view import barrier_document, exit_unless_sure, say_barrier
from gateway.cli.perform import in_session
from gateway.directory.reading.key_usage import find_last_uses
from gateway.identity.new_keys import key_state
from gateway.model.errors import UnknownName
from gateway.operations.known_names import verify_tenant
from gateway.terminal.console import print_json, print_secret, print_table, say, when

if TYPE_CHECKING:
    from gateway.directory.edits.effect import Effect
    from gateway.identity.new_keys import NewKey
    from gateway.model.facts import Key
    from gateway.model.names import KeyId, TenantId
    from gateway.operations.session import OperatorSession
    from gateway.registrar import Done


def print_new_key(new: NewKey, done: Done[Effect], *, as_json: bool, replaces: KeyId | None = None) -> None:
    """Show a new key. The token goes to standard output alone, so that a pipe gets it."""
    if as_json:
        document = {**_plain(new.key, new.key.created_at, None), "generation": done.generation}
        document |= {"changed": done.result.is_changed, "messages": list(done.result.sentences)}
        document |= barrier_document(done.barrier)
        if replaces is not None:
            document["replaces"] = replaces
        if new.token is not None:
            print_secret(new.token, {**document, "token": new.token}, key_id=new.key.key_id)
        else:
            print_json(document)
    else:
        for sentence in done.result.sentences:
            say(sentence)
        say_barrier(done.barrier)
        if new.token is not None:
            say("This is the key. It is shown once and stored nowhere:", style="bold")
            print_secret(new.token, None, key_id=new.key.key_id)
    exit_unless_sure(done.barrier)


def list_keys(tenant: TenantId | None, *, as_json: bool) -> None:
    """List the keys of a tenant, or all."""

    async def work(session: OperatorSession) -> list[dict[str, Any]]:
        if tenant is not None:
            await verify_tenant(session, tenant)
        owners: list[TenantId | None] = [tenant]
        if tenant is None:
            owners += [one.tenant_id for one in await session.listing.list_tenants()]
        now = session.clock.now()
        keys = [key for owner in owners for key in await session.listing.list_keys(owner)]
        seen = await find_last_uses(session.store, [key.key_id for key in keys])
        return [_plain(key, now, seen.get(key.key_id)) for key in keys]

    keys = in_session(work)
    if as_json:
        print_json(keys)
        return
    rows = [
        (
            key["key_id"],
            key["tenant"] or "(admin)",
            key["name"],
            key["state"],
            " ".join(key["scopes"]),
            key["expires_at"],
            key["last_used_at"],
        )
        for key in keys
    ]
    columns = ("key id", "tenant", "name", "state", "scopes", "expires", "last used")
    print_table("Keys", columns, rows, "No key yet. Create one: cachegate keys create --tenant ID")


def show_key(key_id: KeyId, *, as_json: bool) -> None:
    """Show one key's record."""

    async def work(session: OperatorSession) -> dict[str, Any]:
        key = await session.listing.find_key(key_id)
        if key is None:
            raise UnknownName("key", key_id, "`cachegate keys list` shows them")
        seen = await find_last_uses(session.store, [key_id])
        return _plain(key, session.clock.now(), seen.get(key_id))

    shown = in_session(work)
    if as_json:
        print_json(shown)
        return
    rows = [(name.replace("_", " "), _text(value)) for name, value in shown.items()]
    print_table(f"Key {key_id}", ("", ""), rows, "")


def _text(value: object) -> object:
    return " ".join(map(str, value)) or "-" if isinstance(value, list) else value


def _plain(key: Key, now: float, last_used: float | None) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "kind": key.kind.value,
        "tenant": key.tenant,
        "name": key.name,
        "state": key_state(key, now).value,
        "scopes": sorted(scope.value for scope in key.scopes),
        "networks": list(key.networks),
        "created_at": when(key.created_at),
        "not_before": when(key.not_before),
        "expires_at": when(key.expires_at),
        "revoked_at": when(key.revoked_at),
        "last_used_at": when(last_used),
        "pepper": key.pepper_id,
        "source": key.source,
    }
