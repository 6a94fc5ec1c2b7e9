"""The data of the HTTP tests: four tenants, their models, and a key of every kind, served by two workers.

What each tenant may do with each model is written down twice. `DOCUMENTS` say it as an operator would, by
patterns, groups and grants; `RIGHTS` list the expected result, model by model, worked out by hand. No code of
the gateway computes `RIGHTS`, so the two agree only if the gateway is right.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from hashlib import md5, sha256
from typing import Any

import pytest

from gateway.adapters.sample_cache import SampleModel, sample_directory, write_sample_cache
from gateway.configuration.settings import CHECKOUT_POLICIES
from gateway.directory.edits import keys as key_operations
from gateway.identity.new_keys import KeyOrder, adopt_key, import_key, issue_key
from gateway.identity.tokens import mint_token
from gateway.model.facts import KeyKind, Scope
from gateway.model.names import TenantId

SHARED = b"weights that acme and globex happen to share\n" * 40
ORPHANED = b"a blob of a model that nobody has any right on\n"
HIDDEN = b"a blob of a model that was never published\n"

CACHE: dict[str, dict[str, dict[str, bytes]]] = {
    "acme/cars/1": {
        "pkgA1": {"weights.onnx": SHARED, "labels/class_names.txt": b"car\n", "notes.txt": b"unhashed\n"},
        "pkgA2": {"weights.onnx": b"the second package of acme/cars/1\n"},
    },
    "acme/trucks/2": {"pkgT1": {"weights.onnx": b"trucks\n"}},
    "acme/open/1": {"pkgO1": {"weights.onnx": b"open to everybody\n"}},
    "acme/open/secret": {"pkgO1": {"weights.onnx": HIDDEN}},
    "acme/gifts/1": {"pkgF1": {"weights.onnx": b"given away\n"}},
    "acme/odd/1": {"pkgB1": {"good.bin": b"as it should be\n", "bad.bin": b"to be replaced by a link\n"}},
    "globex/cars/1": {"pkgA1": {"weights.onnx": SHARED}, "pkgG2": {"weights.onnx": b"globex cars, again\n"}},
    "globex/lab/1": {"pkgL1": {"weights.onnx": b"to be looked at from outside\n"}},
    "globex/infer/1": {"pkgI1": {"weights.onnx": b"to be run and not to be seen\n"}},
    "globex/wide/1": {
        "pkgW1": {"weights.onnx": b"the package that was granted\n"},
        "pkgW2": {"weights.onnx": b"the package that was not\n"},
    },
    "globex/held/9": {"pkgH1": {"weights.onnx": b"in a group\n"}},
    "initech/printers/1": {"pkgP1": {"weights.onnx": b"of a suspended tenant\n"}},
    "public/demo/1": {"pkgD1": {"weights.onnx": b"nobody's and everybody's\n"}},
    "orphan/model/1": {"pkgX1": {"weights.onnx": ORPHANED}},
}
UNHASHED = {"acme/cars/1": frozenset({"notes.txt"})}
UNSERVABLE = {("acme/odd/1", "pkgB1", "bad.bin")}

ALIASES = {
    "acme-cars": "acme/cars/1",  # the alias has no owner: it may be used like its model
    "globex/best": "acme/trucks/2",  # globex owns the alias, acme the model: acme may not use the alias
    "public/latest": "acme/open/secret",  # a public alias gives no right
    "acme/gone": "acme/gone/1",  # a model that is not in the cache
}

DOCUMENTS = {
    "acme": """
[tenant]
id = "acme"
[models]
own = ["acme/*"]
public = ["acme/open/*", "public/*"]
private = ["acme/open/secret"]
[models.aliases]
"acme-cars" = "acme/cars/1"
"public/latest" = "acme/open/secret"
"acme/gone" = "acme/gone/1"
[models.groups]
vision = ["acme/cars/*"]
[[grants]]
models = ["globex/lab/*"]
actions = ["discover"]
[[grants]]
models = ["globex/infer/1"]
actions = ["infer"]
[[grants]]
models = ["globex/wide/1"]
packages = ["pkgW1"]
actions = ["read"]
""",
    "globex": """
[tenant]
id = "globex"
[models]
own = ["globex/*", "acme/gifts/1"]
[models.aliases]
"globex/best" = "acme/trucks/2"
[models.groups]
vision = ["globex/held/9"]
[[grants]]
models = ["acme/trucks/*"]
actions = ["read"]
""",
    "initech": """
[tenant]
id = "initech"
[models]
own = ["initech/*"]
""",
    "hooli": """
[tenant]
id = "hooli"
[[grants]]
groups = ["vision"]
actions = ["read"]
[[grants]]
models = ["initech/printers/1"]
actions = ["read"]
""",
}

EVERYTHING, READ, LOOK = frozenset("dri"), frozenset("dr"), frozenset("d")
ALL_PACKAGES = "*"

RIGHTS: dict[str, dict[str, dict[str, frozenset[str]]]] = {
    "acme": {
        **{
            model: {ALL_PACKAGES: EVERYTHING}
            for model in (
                *("acme/cars/1", "acme/trucks/2", "acme/open/1", "acme/open/secret", "acme/odd/1"),
                *("acme/gone/1", "public/demo/1", "acme-cars", "public/latest", "acme/gone"),
            )
        },
        "globex/lab/1": {ALL_PACKAGES: LOOK},
        "globex/infer/1": {ALL_PACKAGES: frozenset("i")},
        "globex/wide/1": {"pkgW1": READ},
    },
    "globex": {
        **{
            model: {ALL_PACKAGES: EVERYTHING}
            for model in (
                *("globex/cars/1", "globex/lab/1", "globex/infer/1", "globex/wide/1", "globex/held/9"),
                *("acme/gifts/1", "acme/open/1", "public/demo/1"),
            )
        },
        "acme/trucks/2": {ALL_PACKAGES: READ},
        "globex/best": {ALL_PACKAGES: READ},
    },
    "initech": {},  # suspended: no key of it gets so far
    "hooli": {
        "acme/open/1": {ALL_PACKAGES: EVERYTHING},
        "public/demo/1": {ALL_PACKAGES: EVERYTHING},
        "acme/cars/1": {ALL_PACKAGES: READ},
        "acme-cars": {ALL_PACKAGES: READ},
        "globex/held/9": {ALL_PACKAGES: READ},
        "initech/printers/1": {ALL_PACKAGES: READ},
    },
}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A caller with a key, or with something that is not a valid key."""

    name: str
    token: str | None = field(repr=False, default=None)
    key_id: str | None = None
    tenant: str | None = None
    scopes: frozenset[str] = frozenset({"discover", "read", "infer"})
    is_valid: bool = True
    header: str = "authorization"

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        if self.token is None:
            return ()
        return ((self.header, f"Bearer {self.token}" if self.header == "authorization" else self.token),)

    def may(self, action: str, model: str, package: str | None = None) -> bool:
        """What the key may do: its tenant's rights, limited by its scopes. Letters: d, r or i."""
        capped = {"d": {"discover", "read"}, "r": {"read"}, "i": {"infer"}}[action]
        if not self.is_valid or self.tenant is None or not capped & self.scopes:
            return False
        granted = RIGHTS[self.tenant].get(model, {})
        if package is None:
            return any(action in actions for actions in granted.values())
        return action in granted.get(ALL_PACKAGES, frozenset()) | granted.get(package, frozenset())


@dataclass(frozen=True, kw_only=True)
class World:
    """A served installation with everything in it."""

    installation: Any
    gateway: Any
    callers: dict[str, Caller]

    @property
    def wire(self) -> Any:
        return self.gateway.wire

    def token(self, name: str) -> str:
        token = self.callers[name].token
        assert token is not None
        return token


def digest_of(content: bytes) -> str:
    return md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="session")
def facts():
    """The tables above, for tests that compute what has to come out."""
    return Tables()


class Tables:
    """The content of the cache, and who may do what with it."""

    cache = CACHE
    aliases = ALIASES
    rights = RIGHTS
    unhashed = UNHASHED
    unservable = UNSERVABLE
    shared, orphaned, hidden = SHARED, ORPHANED, HIDDEN
    digest_of = staticmethod(digest_of)


@pytest.fixture(scope="session")
def world(common_world):
    """The world, served; a module that needs one with other settings has a `world` of its own."""
    return common_world


@pytest.fixture(scope="session")
def common_world(build_world):
    """The world of all modules. Nothing that uses it may change a fact.

    The cache does not change either, so it is scanned once: later system calls belong to a request.
    """
    yield from build_world(
        "world", workers=2, CACHEGATE_SCAN_SECONDS="3600", CACHEGATE_PIN_IN_BACKGROUND="off"
    )


@pytest.fixture(scope="session")
def build_world(new_installation):
    """Make a further world, for tests that change it or count in it.

    On a busy machine a worker may hear from Redis too late for the lease of a second: it then answers 503.
    """

    def build(name, *, workers, **environment):
        installation = new_installation(name, **{"CACHEGATE_LEASE_MILLISECONDS": "5000", **environment})
        _write_cache(installation.cache_root)
        policies = write_policies(installation.folder / "policies")
        installation.run("policy", "apply", str(policies), "--yes")
        callers = installation.in_session(_make_callers)
        callers["admin"] = Caller(name="admin", token=installation.admin_key, scopes=frozenset())
        suspended = policies / "tenants" / "initech.toml"  # only now: a suspended tenant gets no new keys
        suspended.write_text(DOCUMENTS["initech"].replace("[models]", "suspended = true\n[models]"))
        installation.run("policy", "apply", str(policies), "--yes")
        gateway = installation.serve(workers=workers)
        try:
            yield World(installation=installation, gateway=gateway, callers=callers)
        finally:
            gateway.stop()
        assert "Traceback" not in gateway.log(), gateway.log()

    return build


def write_policies(folder):
    """A policy folder: the rules that ship, and the documents of this world."""
    (folder / "tenants").mkdir(parents=True)
    for source in (*CHECKOUT_POLICIES.glob("*.cedar"), CHECKOUT_POLICIES / "schema.cedarschema"):
        shutil.copy(source, folder)
    for tenant, document in DOCUMENTS.items():
        (folder / "tenants" / f"{tenant}.toml").write_text(document)
    return folder


def _write_cache(root):
    write_sample_cache(
        root,
        [
            SampleModel(model_id=model, packages=packages, unhashed=UNHASHED.get(model, frozenset()))
            for model, packages in CACHE.items()
        ],
    )
    for model, package, handle in UNSERVABLE:
        path = root / "models-cache" / sample_directory(model) / package / handle
        path.unlink()
        path.symlink_to("/etc/hostname")


async def _make_callers(session):
    now = session.clock.now()
    callers: dict[str, Caller] = {}

    async def store(name, new, token, tenant, **more):
        create = key_operations.create_key if new.token else key_operations.import_key
        await session.perform(
            "keys.create",
            lambda changes: create(changes, key=new.key, digest=new.digest),
            tenant=tenant,
            key_id=new.key.key_id,
        )
        scopes = frozenset(scope.value for scope in new.key.scopes)
        callers[name] = Caller(
            name=name, token=token, key_id=new.key.key_id, tenant=tenant, scopes=scopes, **more
        )
        return new.key

    async def issue(name, tenant, *, scopes=None, networks=(), expires_at=None, since=now, **more):
        order = KeyOrder(
            now=min(now, since),
            kind=KeyKind.TENANT,
            tenant=TenantId(tenant),
            scopes=None if scopes is None else frozenset(map(Scope, scopes)),
            networks=networks,
            not_before=since if since > now else None,
            expires_at=expires_at,
        )
        new = issue_key(order, environment="test", peppers=session.peppers)
        return await store(name, new, new.token, tenant, **more)

    async def rotate(name, old, overlap_seconds):
        order = KeyOrder(now=now, kind=KeyKind.TENANT, tenant=old.tenant)
        new = issue_key(order, environment="test", peppers=session.peppers)
        await session.perform(
            "keys.rotate",
            lambda changes: key_operations.rotate_key(
                changes,
                key_id=old.key_id,
                successor=new.key,
                digest=new.digest,
                now=now,
                overlap_seconds=overlap_seconds,
            ),
        )
        callers[name] = Caller(name=name, token=new.token, key_id=new.key.key_id, tenant=old.tenant)

    for tenant in ("acme", "globex", "hooli"):
        await issue(tenant, tenant)
    await issue("acme reads only", "acme", scopes=("read",))
    await issue("acme discovers only", "acme", scopes=("discover",))
    await issue("acme infers only", "acme", scopes=("infer",))
    await issue("acme audits only", "acme", scopes=("audit:read",))
    await issue("acme from inside", "acme", networks=("127.0.0.0/8",))
    await issue("acme from outside", "acme", networks=("203.0.113.0/24",), is_valid=False)
    await issue("acme expired", "acme", since=now - 7200, expires_at=now - 3600, is_valid=False)
    await issue("acme not yet", "acme", since=now + 3600, is_valid=False)
    revoked = await issue("acme revoked", "acme", is_valid=False)
    await session.perform(
        "keys.revoke", lambda changes: key_operations.revoke_key(changes, key_id=revoked.key_id, now=now)
    )
    await rotate("acme rotated in", await issue("acme rotated out", "acme", is_valid=False), 0.0)
    await rotate("acme successor", await issue("acme in overlap", "acme"), 3600.0)

    order = KeyOrder(now=now, kind=KeyKind.TENANT, tenant=TenantId("acme"))
    opaque, imported = "sk-a-key-of-an-older-platform-1", "sk-a-key-of-an-older-platform-2"
    await store("acme opaque", adopt_key(order, raw_key=opaque, peppers=session.peppers), opaque, "acme")
    by_hash = import_key(order, sha256_hex=sha256(imported.encode()).hexdigest(), peppers=session.peppers)
    await store("acme imported", by_hash, imported, "acme")

    await issue("initech", "initech", is_valid=False)

    acme = callers["acme"]
    callers["acme by x-api-key"] = Caller(
        name="acme by x-api-key", token=acme.token, key_id=acme.key_id, tenant="acme", header="x-api-key"
    )
    unknown = mint_token("test")
    callers["unknown"] = Caller(name="unknown", token=unknown, is_valid=False)
    mistyped = unknown[:-1] + ("0" if unknown[-1] != "0" else "1")
    callers["mistyped"] = Caller(name="mistyped", token=mistyped, is_valid=False)
    callers["unknown opaque"] = Caller(name="unknown opaque", token="sk-nobody-knows-me-0", is_valid=False)
    callers["nobody"] = Caller(name="nobody", is_valid=False)
    return callers


@pytest.fixture
def talk(world):
    """One kept connection to the gateway."""
    with world.wire.talk() as conversation:
        yield conversation
