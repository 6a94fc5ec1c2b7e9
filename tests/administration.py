"""A client of the administration: JSON in raw bytes, over a `Wire` of the tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.answer import Answer

ADMIN = "/admin/v1"


@dataclass(frozen=True)
class Administrator:
    """Somebody with a key, or without one: on the admin API, or with `path` /v1 on the tenants' routes."""

    wire: Any
    key: str | None
    path: str = ADMIN

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """`body` is sent as JSON; bytes are sent as they are. Headers have dashes for underscores."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {self.path}{path} HTTP/1.1", "Host: gateway", "Connection: close"]
        if self.key is not None:
            lines.append(f"Authorization: Bearer {self.key}")
        if raw or method in {"POST", "PUT", "PATCH"}:
            lines.append(f"Content-Length: {len(raw)}")
        if raw and "content_type" not in headers:
            lines.append("Content-Type: application/json")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return self.wire.send("\r\n".join(lines).encode() + b"\r\n\r\n" + raw, is_head=method == "HEAD")

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    def made(self, path: str, body: Any = None) -> dict[str, Any]:
        """What a request came to that has to be done."""
        answer = self.post(path, body)
        assert answer.status in {200, 201}, answer.body
        return answer.json()
