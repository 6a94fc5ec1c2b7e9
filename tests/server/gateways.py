"""A gateway in front of the inference server, and what a test does with it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from http_client import Answer, post, send
from tenants_models import ALIAS, ALIASES

from gateway.directory.edits import keys
from gateway.identity.new_keys import KeyOrder, import_key, issue_key
from gateway.model.facts import KeyKind
from gateway.model.names import TenantId

if TYPE_CHECKING:
    from provider import Provider
    from upstream import Note, Server

SERVICE_KEY = "the-operators-key-of-the-inference-server"
PROBES = ("/healthz", "/readiness", "/info")
PUBLISHED = (
    *("clip/*", "sam2/*", "sam3/*", "classifiers/*", "doctr/*", "trocr/*", "easy_ocr/*", "yolo_world/*"),
    *("pp_ocr/*", "pp-ocrv6-det/*", "pp-ocrv6-rec/*", "perception_encoder/*", "perception-encoder/*"),
    *("depth-anything-v2/*", "depth-anything-v3/*"),
)


@dataclass
class Upstream:
    """The server with the provider behind it."""

    server: Server
    provider: Provider


@dataclass(frozen=True)
class TenantKey:
    """A tenant's key, as the tenant has it, and its id."""

    tenant: str
    token: str
    key_id: str


@dataclass
class Front:
    """A gateway in front of the server."""

    installation: Any
    gateway: Any
    upstream: Upstream
    mount: str = "/inference"
    _keys: dict[tuple[str, ...], TenantKey] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.wire.port}{self.mount}"

    @property
    def notes(self) -> Any:
        return self.upstream.server.notes

    def key(self, tenant: str = "acme") -> TenantKey:
        """A key of ours, which no test revokes."""
        return self._kept(tenant, "first")

    def other_key(self, tenant: str = "acme") -> TenantKey:
        """Another one."""
        return self._kept(tenant, "second")

    def _kept(self, *name: str) -> TenantKey:
        if name not in self._keys:
            self._keys[name] = self.new_key(name[0])
        return self._keys[name]

    def new_key(self, tenant: str = "acme") -> TenantKey:
        """A key of this test's own."""
        return self.installation.in_session(lambda session: _new_key(session, tenant))

    def platform_key(self, tenant: str = "acme", *patterns: str) -> TenantKey:
        """A new key of the platform, known here by its hash, and at the provider with these rights."""
        token = secrets.token_hex(10)
        self.upstream.provider.grant(token, *(patterns or (f"{tenant}/*",)))
        return self.installation.in_session(lambda session: _imported_key(session, tenant, token))

    def revoke(self, key: TenantKey) -> None:
        """When this returns, no worker starts anything for the key any more (I6)."""
        self.installation.in_session(lambda session: _revoke(session, key))

    def post(self, target: str, document: Any, key: TenantKey | None = None, **more: Any) -> Answer:
        return post(self.url, target, document, None if key is None else key.token, **more)

    def send(
        self, method: str, target: str, body: bytes | None = None, headers: Any = (), **more: Any
    ) -> Answer:
        return send(self.url, method, target, body, headers, **more)

    def record(self, answer: Answer) -> dict[str, Any]:
        """The decision that an answer names."""
        return next(one for one in self.installation.records() if one.get("id") == answer.record_id)

    def reason(self, answer: Answer) -> str:
        """Why a request was refused: by its decision, or by what came of it after it was permitted."""
        reason = str(self.record(answer)["reason"])
        return self.reason_of_end(answer) if reason == "permitted" else reason

    def reason_of_end(self, answer: Answer) -> str:
        """The reason in the record that closes the decision which the answer names."""
        return str(self.installation.outcome_of(answer.record_id)["reason"])

    def sent(self) -> list[Note]:
        """What the gateway sent to the server since the test began, but for its own probes."""
        return [note for note in self.notes.requests() if note.path not in PROBES]


async def _new_key(session, tenant: str) -> TenantKey:
    order = KeyOrder(now=session.clock.now(), kind=KeyKind.TENANT, tenant=TenantId(tenant))
    new = issue_key(order, environment="test", peppers=session.peppers)
    return await _store(session, new, tenant, new.token)


async def _imported_key(session, tenant: str, token: str) -> TenantKey:
    order = KeyOrder(now=session.clock.now(), kind=KeyKind.TENANT, tenant=TenantId(tenant))
    new = import_key(order, sha256_hex=sha256(token.encode()).hexdigest(), peppers=session.peppers)
    return await _store(session, new, tenant, token)


async def _store(session, new, tenant, token) -> TenantKey:
    await session.perform(
        "keys.create",
        lambda changes: keys.create_key(changes, key=new.key, digest=new.digest),
        tenant=TenantId(tenant),
        key_id=new.key.key_id,
    )
    return TenantKey(tenant, token, new.key.key_id)


async def _revoke(session, key: TenantKey) -> None:
    now = session.clock.now()
    await session.perform(
        "keys.revoke",
        lambda changes: keys.revoke_key(changes, key_id=key.key_id, now=now),
        key_id=key.key_id,
    )


def serve(new_installation, upstream: Upstream, settings: dict[str, str]) -> Front:
    wanted = {"INFERENCE_URL": upstream.server.url, "INFERENCE_KEY": SERVICE_KEY} | settings
    environment = {f"CACHEGATE_{name}": value for name, value in wanted.items() if value}
    installation = new_installation("front", **environment)
    for tenant in ("acme", "globex"):
        installation.run("tenants", "create", tenant)
        installation.run("models", "own", tenant, f"{tenant}/*")
    installation.run("models", "publish", *PUBLISHED)
    installation.run("models", "alias", ALIAS, ALIASES[ALIAS])
    return Front(
        installation, installation.serve(workers=2), upstream, settings.get("INFERENCE_MOUNT", "/inference")
    )
