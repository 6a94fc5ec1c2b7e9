"""The demo's data: a cache in the engine's layout, and the tenants, rights and keys about it.

    acme      owns acme/*, may read one package of globex/signs/1, calls acme/cars/1 also acme/latest
    globex    owns globex/*; its globex/cars/1 has exactly the weights of acme/cars/1, one blob for both
    initech   owns nothing and was granted nothing
    public/demo/1 is for every tenant

Everything is made by the operations that the commands use, so the demo's audit log records all of it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.configuration.settings import CHECKOUT_POLICIES, PACKAGED_POLICIES
from gateway.configuration.sources import load_settings
from gateway.directory.edits.grants import add_grants
from gateway.directory.edits.keys import create_key, revoke_key
from gateway.directory.edits.models import add_alias, own, publish
from gateway.directory.edits.tenants import create_tenant
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.model.facts import KeyKind, Scope
from gateway.model.hidden_fields import shown
from gateway.model.names import parse_model_id, parse_package_id, parse_pattern, parse_tenant_id
from gateway.operations.session import open_session
from gateway.operations.setup import set_up

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from gateway.configuration.settings import Settings
    from gateway.directory.edits.changes import Changes
    from gateway.directory.edits.effect import Effect
    from gateway.model.names import KeyId, TenantId
    from gateway.operations.session import OperatorSession

SETTINGS_FILE = "cachegate.toml"
TENANTS = {"acme": "Acme Corp", "globex": "Globex", "initech": "Initech"}
HOUR = 3600.0

SHARED_WEIGHTS = b"the weights that two tenants trained from, byte for byte\n" * 64
"""Both cars models have these weights, so the engine stores them once, under one MD5."""

MODELS = (
    SampleModel(
        model_id="acme/cars/1",
        packages={"pkgA1": {"weights.onnx": SHARED_WEIGHTS, "class_names.txt": b"car\nvan\n"}},
    ),
    SampleModel(model_id="acme/trucks/2", packages={"pkgA2": {"weights.onnx": b"trucks of acme\n" * 80}}),
    SampleModel(
        model_id="globex/cars/1",
        packages={"pkgB1": {"weights.onnx": SHARED_WEIGHTS, "class_names.txt": b"auto\n"}},
    ),
    SampleModel(
        model_id="globex/signs/1",
        packages={
            "pkgB2": {"weights.onnx": b"signs, small\n" * 40},
            "pkgB3": {"weights.onnx": b"signs, large\n" * 90},
        },
    ),
    SampleModel(model_id="public/demo/1", packages={"pkgP1": {"weights.onnx": b"for everybody\n" * 20}}),
)


class DemoKey(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A key of the demo, with its token, which the demo has to send."""

    key_id: KeyId
    token: str

    def __repr__(self) -> str:
        return shown(self, hidden=("token",))


class DemoWorld(msgspec.Struct, frozen=True, kw_only=True):
    """What the tour needs to know. Keys by the name that the tour's table shows."""

    keys: Mapping[str, DemoKey]
    shared_md5: str


def demo_settings(folder: Path) -> Settings:
    """Write the demo's settings file and read it. The caller's environment is ignored."""
    policies = PACKAGED_POLICIES if PACKAGED_POLICIES.is_dir() else CHECKOUT_POLICIES
    values = {
        "state": str(folder / "state"),
        "cache_root": str(folder / "cache"),
        "policies": str(policies),
        "node": "demo",
        "token_env": "demo",
    }
    text = "".join(f"{name} = {_quoted(value)}\n" for name, value in values.items())
    file = folder / SETTINGS_FILE
    file.touch(mode=0o600)  # whatever the umask is: settings that others may write are not read
    file.write_text(text, encoding="utf-8")
    return load_settings({"CACHEGATE_CONFIG": str(file)})


async def build_world(settings: Settings) -> DemoWorld:
    """Write the cache, set the state folder up, make all changes of facts."""
    files = write_sample_cache(settings.cache_root, MODELS)
    shared = next(one.md5 for one in files if one.handle == "weights.onnx" and one.md5 is not None)
    await set_up(settings)
    async with open_session(settings) as session:
        now = session.clock.now()
        for tenant, name in TENANTS.items():
            await _create_tenant(session, parse_tenant_id(tenant), name, now)
        await _own_and_share(session)
        keys = {
            "acme": await _issue(session, "acme", "acme, production", now),
            "acme-laptop": await _issue(session, "acme", "acme, laptop", now),
            "acme-catalogue": await _issue(session, "acme", "acme, web shop", now, {Scope.DISCOVER}),
            "acme-expired": await _issue(session, "acme", "acme, last year", now - 2 * HOUR, ends=now - HOUR),
            "acme-revoked": await _issue(session, "acme", "acme, left on a train", now),
            "globex": await _issue(session, "globex", "globex, production", now),
            "initech": await _issue(session, "initech", "initech, trial", now),
        }
        await _revoke(session, keys["acme-revoked"].key_id)
    return DemoWorld(keys=keys, shared_md5=shared)


async def revoke(settings: Settings, key: DemoKey) -> None:
    """Revoke a key while the gateway serves, as `cachegate keys revoke` does."""
    async with open_session(settings) as session:
        await _revoke(session, key.key_id)


async def _create_tenant(session: OperatorSession, tenant: TenantId, name: str, now: float) -> None:
    await session.perform(
        "tenants.create",
        lambda changes: create_tenant(changes, tenant_id=tenant, name=name, now=now),
        tenant=tenant,
    )


async def _own_and_share(session: OperatorSession) -> None:
    acme, globex = parse_tenant_id("acme"), parse_tenant_id("globex")
    everything = {acme: parse_pattern("acme/*"), globex: parse_pattern("globex/*")}
    for tenant, pattern in everything.items():
        await _order(session, "models.own", pattern, _owning(tenant, pattern), tenant)
    public = parse_pattern("public/demo/1")
    await _order(session, "models.publish", public, lambda changes: publish(changes, patterns=[public]))
    alias, canonical = parse_model_id("acme/latest"), parse_model_id("acme/cars/1")
    await _order(
        session, "models.alias", alias, lambda changes: add_alias(changes, alias=alias, canonical=canonical)
    )
    signs, package = parse_pattern("globex/signs/1"), parse_package_id("pkgB2")
    await _order(
        session,
        "grants.add",
        signs,
        lambda changes: add_grants(
            changes, tenant_id=acme, models=[signs], packages=[package], actions=["read"]
        ),
        acme,
    )


def _owning(tenant: TenantId, pattern: str) -> Callable[[Changes], Awaitable[Effect]]:
    return lambda changes: own(changes, tenant_id=tenant, patterns=[parse_pattern(pattern)])


async def _order(
    session: OperatorSession,
    action: str,
    subject: str,
    operation: Callable[[Changes], Awaitable[Effect]],
    tenant: TenantId | None = None,
) -> None:
    await session.perform(action, operation, tenant=tenant, subject=(subject,))


async def _issue(
    session: OperatorSession,
    tenant: str,
    name: str,
    now: float,
    scopes: set[Scope] | None = None,
    *,
    ends: float | None = None,
) -> DemoKey:
    order = KeyOrder(
        now=now,
        kind=KeyKind.TENANT,
        tenant=parse_tenant_id(tenant),
        name=name,
        scopes=frozenset(scopes) if scopes else None,
        expires_at=ends,
    )
    new = issue_key(order, environment=session.settings.token_env, peppers=session.peppers)
    if new.token is None:
        raise TypeError("an issued key has a token")
    await session.perform(
        "keys.create",
        lambda changes: create_key(changes, key=new.key, digest=new.digest),
        tenant=new.key.tenant,
        key_id=new.key.key_id,
    )
    return DemoKey(key_id=new.key.key_id, token=new.token)


async def _revoke(session: OperatorSession, key_id: KeyId) -> None:
    now = session.clock.now()
    await session.perform(
        "keys.revoke", lambda changes: revoke_key(changes, key_id=key_id, now=now), key_id=key_id
    )


def _quoted(value: str) -> str:
    """A TOML string: JSON's escapes are among TOML's."""
    return json.dumps(value)
