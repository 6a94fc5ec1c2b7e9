"""Posts batches of audit records to the URL of a consumer, over HTTP.

The URL is an operator's. https with a verified certificate, by a CA of the operator's where one is given;
plain http only where the operator said so. No redirect is followed: a target that moves is a registration
that changes. Proxy settings, netrc and cookies of the environment are ignored. Each post is bounded in time
as a whole, from connecting to the end of the answer, of which no more is read than a bound; its text counts
nothing.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx
import msgspec

from gateway.model.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

POST_SECONDS = 30.0
CONNECT_SECONDS = 5.0
MOST_ANSWER_BYTES = 64 << 10  # that are read, so that the connection can be used again
MOST_RETRY_DIGITS = 6


class PushAnswer(msgspec.Struct, frozen=True):
    """The status of an answer, and how long its target asks us to wait."""

    status: int
    retry_after_seconds: float | None = None


class PushClient:
    """The connection to one target. Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        *,
        ca_file: Path | None = None,
        may_be_plain: bool = False,
        seconds: float = POST_SECONDS,
    ) -> None:
        self._url = verify_push_url(url, may_be_plain=may_be_plain)
        self._seconds = seconds
        self._client = httpx.AsyncClient(
            verify=_trust(ca_file),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(seconds, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        )

    async def post(self, body: bytes, headers: Mapping[str, str]) -> PushAnswer:
        """Post a body. Raises `Unavailable` when no answer came."""
        try:
            async with asyncio.timeout(self._seconds):
                request = self._client.build_request("POST", self._url, content=body, headers=dict(headers))
                self._client.cookies.clear()  # what an answer sets is not sent again
                answer = await self._client.send(request, stream=True)
                try:
                    await _drain(answer)
                finally:
                    await answer.aclose()
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Unavailable("push", f"{self._url.host} took longer than {self._seconds:g} s") from error
        except (httpx.HTTPError, ssl.SSLError, OSError) as error:
            raise Unavailable("push", f"{self._url.host} did not answer ({_kind(error)})") from error
        return PushAnswer(answer.status_code, _retry_after(answer.headers))

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()


def verify_push_url(url: str, *, may_be_plain: bool) -> httpx.URL:
    """The URL, checked. Raises `Misconfigured`."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise Misconfigured("--url", "is not a URL; give https://HOST/PATH") from None
    if parsed.scheme not in ({"https", "http"} if may_be_plain else {"https"}) or not parsed.host:
        raise Misconfigured("--url", "is none that is posted to; give https://HOST/PATH, or --plain for http")
    # It stands in a file and in lists of consumers: what a query holds is a token as often as not.
    if parsed.userinfo or parsed.fragment or "?" in url:
        raise Misconfigured("--url", "has a login, a query or a fragment; sign with --secret-file instead")
    return parsed


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured("--ca-file", f"{ca_file} holds no certificate in PEM that can be read") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _drain(answer: httpx.Response) -> None:
    """Read a small answer to its end; a larger one costs its connection."""
    size = 0
    async for piece in answer.aiter_raw(16 << 10):
        size += len(piece)
        if size > MOST_ANSWER_BYTES:
            return


def _retry_after(headers: httpx.Headers) -> float | None:
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:MOST_RETRY_DIGITS])
    with suppress(TypeError, ValueError):
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is not None:
            return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
    return None


def _kind(error: BaseException) -> str:
    """What kind of error it is; the text of an error may hold what a target sent."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {cause.verify_message}"
    return type(error).__name__
