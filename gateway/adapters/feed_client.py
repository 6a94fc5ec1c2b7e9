"""A client of the audit feed of one or more nodes, for `audit follow`.

It sends the key to the address that the operator named and to those that are listed there, never in plain
text where the operator named an encrypted one. It follows no redirect, asks no proxy of the environment, and
reads no more of an answer than a page can have. Its calls block.
"""

from __future__ import annotations

from typing import TypeVar

import httpx
import msgspec

from gateway.model.errors import BadNameError, Misconfigured, Unavailable
from gateway.model.hidden_fields import shown

EVENTS, NODES = "/audit/v1/events", "/audit/v1/nodes"
LIMIT = 1000
WAIT_SECONDS = 25.0
PATIENCE_SECONDS = 10.0  # beyond the wait
MOST_BYTES = 32 << 20  # of an answer: a page has 4 MiB of records, and may have one large record more

_T = TypeVar("_T")


class ReadEvent(msgspec.Struct, frozen=True):
    """One record, byte for byte as it was sent."""

    cursor: str
    record: msgspec.Raw


class ReadPage(msgspec.Struct, frozen=True):
    """What was read; the next page begins at `next`."""

    events: list[ReadEvent]
    next: str
    at_end: bool


class ListedNode(msgspec.Struct, frozen=True):
    """A node, and where its feed is; without a URL, where it was asked for."""

    node: str
    url: str | None = None
    is_this: bool = False


class _ListedNodes(msgspec.Struct, frozen=True):
    nodes: list[ListedNode]


class _Problem(msgspec.Struct, frozen=True):
    type: str = ""
    detail: str = ""


class FeedClient(msgspec.Struct, frozen=True):
    """Reads with one key, which is never printed (I8)."""

    url: str
    key: str

    def __repr__(self) -> str:
        return shown(self, hidden=("key",))

    def list_nodes(self) -> list[ListedNode]:
        """The nodes that have a feed. Raises as `read` does."""
        raw = self._get(self.url, NODES, {}, PATIENCE_SECONDS)
        return _decoded(self.url, raw, _ListedNodes).nodes

    def read(self, url: str, after: str | None, *, wait_seconds: float = WAIT_SECONDS) -> ReadPage:
        """The page behind a cursor. Raises `Unavailable` for what may be tried again.

        Raises `Misconfigured` for a key that may not read, and `BadNameError` for a cursor that is none.
        """
        query = {"limit": str(LIMIT), "wait": f"{wait_seconds:g}"}
        if after is not None:
            query["after"] = after
        return _decoded(url, self._get(url, EVENTS, query, wait_seconds + PATIENCE_SECONDS), ReadPage)

    def may_be_told(self, url: str) -> bool:
        """Whether the key may be sent to a listed address: not unencrypted where the named one is not."""
        return url.startswith("https://") or not self.url.startswith("https://")

    def _get(self, url: str, path: str, query: dict[str, str], seconds: float) -> bytes:
        headers = {"Authorization": f"Bearer {self.key}", "Accept": "application/json"}
        try:
            with (
                httpx.Client(timeout=seconds, trust_env=False, follow_redirects=False) as client,
                client.stream("GET", url.rstrip("/") + path, params=query, headers=headers) as answer,
            ):
                body = bytearray()
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise Unavailable("gateway", f"{url} sends more than a page has")
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the last: of a host name
            what = type(error).__name__  # an error of the client may quote what it was given
            raise Unavailable("gateway", f"{url} does not answer ({what})") from error
        if answer.status_code == httpx.codes.OK:
            return bytes(body)
        raise _error_of(url, answer.status_code, bytes(body))


def _decoded(url: str, raw: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:  # the second: of an answer that is nested deeply
        raise Unavailable("gateway", f"{url} does not answer as an audit feed") from error


def _error_of(url: str, status: int, raw: bytes) -> Exception:
    try:
        detail = msgspec.json.decode(raw, type=_Problem).detail
    except (msgspec.DecodeError, RecursionError):
        detail = ""
    text = f"{url}: {detail or f'status {status}'}"
    match status:
        case httpx.codes.UNAUTHORIZED | httpx.codes.FORBIDDEN:
            return Misconfigured("CACHEGATE_ADMIN_KEY", text)
        case httpx.codes.BAD_REQUEST:
            return BadNameError(text)
        case _:
            return Unavailable("gateway", text)
