"""A gateway in front of the inference server, and what a test does with it."""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from http_client import SECONDS, bearer, post, send
from tenants_models import ALIAS, ALIASES

from tests import tenant_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from provider import Provider
    from upstream import Note, Server

    from tests.answer import Answer

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

    def new_model(self, like: str) -> str:
        """A model of the same tenant that nobody ever asked for: nothing remembers anything of it."""
        name = f"{like.partition('/')[0]}/{100 + secrets.randbelow(10**8)}"
        self.provider.models[name] = replace(self.provider.models[like], model_id=name)
        return name

    @contextmanager
    def standing_for(self, name: str, model: str) -> Iterator[None]:
        """Within it, the provider has this model behind a name."""
        self.provider.aliases[name] = model
        try:
            yield
        finally:
            del self.provider.aliases[name]


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
        return f"http://127.0.0.1:{self.gateway.wire.port}{self.mount.rstrip('/')}"

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
        token, key_id = self.installation.in_session(lambda session: tenant_keys.create(session, tenant))
        return TenantKey(tenant, token, key_id)

    def platform_key(self, tenant: str = "acme", *patterns: str) -> TenantKey:
        """A new key of the platform, known here by its hash, and at the provider with these rights."""
        token = secrets.token_hex(10)
        self.upstream.provider.grant(token, *(patterns or (f"{tenant}/*",)))
        key_id = self.installation.in_session(lambda session: tenant_keys.take_in(session, tenant, token))
        return TenantKey(tenant, token, key_id)

    def revoke(self, key: TenantKey) -> None:
        """When this returns, no worker starts anything for the key any more (I6)."""
        self.installation.in_session(lambda session: tenant_keys.revoke(session, key.key_id))

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

    def begin(self, target: str, document: Any, key: TenantKey) -> Any:
        """A connection on which a request was sent, and nothing read."""
        body = json.dumps(document).encode()
        headers = (("Host", "gateway"), ("Content-Type", "application/json"), *bearer(key.token))
        lines = [f"POST {self.mount.rstrip('/')}{target} HTTP/1.1", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        connection = self.gateway.wire.connect(SECONDS)
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return connection

    def load_directly(self, model: str) -> None:
        """The operator loads a model past the gateway. Not noted."""
        loaded = post(self.upstream.server.url, "/model/add", {"model_id": model}, SERVICE_KEY)
        assert loaded.status == 200, loaded.body
        self.notes.mark()

    def explain(self, answer: Answer) -> str:
        """What an operator is told about a request."""
        return str(self.installation.run("explain", "--record", answer.record_id).stdout)

    def sent(self) -> list[Note]:
        """What the gateway sent to the server since the test began, but for its own probes."""
        return [note for note in self.notes.requests() if note.path not in PROBES]


def serve(new_installation, upstream: Upstream, settings: dict[str, str], **variables: str) -> Front:
    """A gateway with these settings; `variables` stand beside them in its environment."""
    wanted = {"INFERENCE_URL": upstream.server.url, "INFERENCE_KEY": SERVICE_KEY} | settings
    environment = variables | {f"CACHEGATE_{name}": value for name, value in wanted.items() if value}
    installation = new_installation("front", **environment)
    for tenant in ("acme", "globex"):
        installation.run("tenants", "create", tenant)
        installation.run("models", "own", tenant, f"{tenant}/*")
    installation.run("models", "publish", *PUBLISHED)
    installation.run("models", "alias", ALIAS, ALIASES[ALIAS])
    return Front(
        installation, installation.serve(workers=2), upstream, settings.get("INFERENCE_MOUNT", "/inference")
    )
