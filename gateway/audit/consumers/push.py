"""Push records to a URL: signed batches of JSON lines, each with an id of its delivery.

    POST <url>
    Content-Type: application/x-ndjson
    Cachegate-Node: <node>
    Cachegate-Delivery: <id>         the same whenever the same records are tried again
    Cachegate-Timestamp: <seconds>   of this attempt
    Cachegate-Signature: v1=<hex>    HMAC-SHA256 with the shared secret over `<timestamp>.<delivery>.<body>`

Each line of the body is a record as it stands in the log. With two secrets (two lines in the file, while one
replaces the other) there are two signatures, `v1=<hex>,v1=<hex>`.

2xx is an acknowledgement. 408, 429, 3xx, 5xx and no answer are tried again. Any other 4xx is a refusal for
good: the records go to the dead letters, and it is recorded. A batch that is too large for the target (413)
is cut in halves first, so that only what really is goes there.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from gateway.audit.consumers.delivery import HandedPage, NotDeliveredError
from gateway.audit.timeline import time_text
from gateway.model.errors import BadNameError, Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.audit.consumers.dead_letters import DeadLetters
    from gateway.audit.index import Cursor, IndexedRecord

NODE_HEADER = "cachegate-node"
DELIVERY_HEADER = "cachegate-delivery"
TIME_HEADER = "cachegate-timestamp"
SIGNATURE_HEADER = "cachegate-signature"
CONTENT_TYPE = "application/x-ndjson"
LEAST_SECRET_BYTES, MOST_SECRET_BYTES, MOST_SECRETS = 32, 512, 2
_DELIVERY_CHARACTERS = 32
_OK, _REDIRECTS, _CLIENT_ERRORS, _SERVER_ERRORS = 200, 300, 400, 500
_TOO_LARGE = 413
_AGAIN = frozenset({408, 429})


class PostAnswer(Protocol):
    """What a target answered."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def retry_after_seconds(self) -> float | None:
        """How long it asks us to wait."""


class Poster(Protocol):
    """Posts a body."""

    async def post(self, body: bytes, headers: Mapping[str, str]) -> PostAnswer:
        """Post. Raises `Unavailable` when no answer came."""

    async def close(self) -> None:
        """Close the connection."""


class PushTarget:
    """One target. `load_secrets` reads the secrets, at each attempt; `note_refusal` records one."""

    def __init__(
        self,
        poster: Poster,
        dead_letters: DeadLetters,
        *,
        node: str,
        load_secrets: Callable[[], Sequence[bytes]],
        note_refusal: Callable[[int, str], None],
        now: Callable[[], float],
    ) -> None:
        self._poster = poster
        self._dead_letters = dead_letters
        self._node = node
        self._load_secrets = load_secrets
        self._note_refusal = note_refusal
        self._now = now

    async def deliver(self, records: Sequence[IndexedRecord], start: Cursor, end: Cursor) -> HandedPage:
        """Post the records; raises `NotDeliveredError`."""
        del start, end
        return HandedPage(refused=await self._post([one.line for one in records]))

    async def close(self) -> None:
        """Close the connection."""
        await self._poster.close()

    async def _post(self, lines: list[bytes]) -> int:
        """Post lines; how many were refused for good."""
        body = b"".join(line + b"\n" for line in lines)
        delivery = delivery_id(body)
        try:
            headers = self._headers(body, delivery)
            answer = await self._poster.post(body, headers)
        except (Unavailable, Misconfigured) as failure:
            raise NotDeliveredError(str(failure)) from failure
        status = answer.status
        if _OK <= status < _REDIRECTS:
            return 0
        if status == _TOO_LARGE and len(lines) > 1:
            middle = len(lines) // 2
            return await self._post(lines[:middle]) + await self._post(lines[middle:])
        if _CLIENT_ERRORS <= status < _SERVER_ERRORS and status not in _AGAIN:
            self._dead_letters.append(lines, at=time_text(self._now()), delivery=delivery, status=status)
            self._note_refusal(len(lines), f"HTTP {status}; delivery {delivery}")
            return len(lines)
        why = f"the target answered with status {status}"
        if _REDIRECTS <= status < _CLIENT_ERRORS:
            why += ": redirects are not followed; register the URL that it has now"
        raise NotDeliveredError(why, pause_seconds=answer.retry_after_seconds)

    def _headers(self, body: bytes, delivery: str) -> dict[str, str]:
        timestamp = str(int(self._now()))
        signatures = [f"v1={sign(secret, timestamp, delivery, body)}" for secret in self._load_secrets()]
        return {
            "content-type": CONTENT_TYPE,
            "user-agent": "cachegate",
            NODE_HEADER: self._node,
            DELIVERY_HEADER: delivery,
            TIME_HEADER: timestamp,
            SIGNATURE_HEADER: ",".join(signatures),
        }


def delivery_id(body: bytes) -> str:
    """The id of a delivery: the same for the same records."""
    return sha256(body).hexdigest()[:_DELIVERY_CHARACTERS]


def sign(secret: bytes, timestamp: str, delivery: str, body: bytes) -> str:
    """The signature of a delivery, in hex."""
    return hmac.new(secret, f"{timestamp}.{delivery}.".encode() + body, sha256).hexdigest()


def parse_secrets(raw: bytes) -> list[bytes]:
    """The secrets of a file, one a line, the newest first. Raises `BadNameError`, which repeats none."""
    found = [line.strip() for line in raw.splitlines() if line.strip()]
    if not 1 <= len(found) <= MOST_SECRETS:
        raise BadNameError(f"holds {len(found)} secrets; expected one, or two while one replaces the other")
    if not all(LEAST_SECRET_BYTES <= len(one) <= MOST_SECRET_BYTES for one in found):
        raise BadNameError(
            f"holds a secret that is too short or too long; expected {LEAST_SECRET_BYTES} characters at "
            "least, as of `openssl rand -hex 32`"
        )
    return found
