"""The proxy face: answers `/proxy?url=...`, for engines that send everything through a `SECURE_GATEWAY`.

    GET/HEAD /proxy?url=<the API's metadata URL, once encoded>
    GET/HEAD /proxy?url=<a link of ours, once encoded>&se=...&sig=...

It is not a proxy. The wrapped URL is parsed, and answered as if it had been sent to the face it belongs to:
the guard gets the inner request and the inner route. Nothing is ever fetched from a URL that a client wrote:
metadata is asked of the configured provider, by whichever name the client called it, and a file of the
provider's is streamed from where the provider told *us* it is. So there is no host to forbid, no redirect to
follow, and no address to resolve. A URL that has none of these forms is refused (NOT_PROXIED), wherever it
leads.

The inner URL may contain a key as `api_key`: some clients know no other way. It counts like one in a header,
and two that differ refuse the request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.engine.proxy_urls import PROXY_PATH, find_path_below
from gateway.engine.signed_proxy_urls import parse_asked
from gateway.engine.urls import parse_url
from gateway.faces.engine import answer_question, stat_route, weights_route
from gateway.faces.route import FaceRoute
from gateway.model.access import Action
from gateway.model.errors import Reason, Refusal
from gateway.model.queries import split_query
from gateway.model.routes import GuardedRoute
from gateway.model.verdicts import EngineAnswer
from gateway.resource.paths import is_download

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway.engine.urls import Url
    from gateway.model.access import Resource, WireRequest
    from gateway.model.answers import Answer
    from gateway.model.verdicts import Receipt
    from gateway.model_metadata.caller_metadata import Offers

READS = ("GET", "HEAD")
API_HOSTS = frozenset({"api.roboflow.com", "api.roboflow.one", "api.roboflow.eu", "api.roboflow-eu.one"})
"""The hosts of the engine's default provider. A URL with one of them means the configured provider."""

_KEY_PARAMETER = b"api_key="
_HTTPS_PORT = 443


class Unwrapping:
    """Turns a request for `/proxy` into the inner request and its route."""

    def __init__(
        self, *, public_url: str, upstream: str | None, offers: Offers, download: GuardedRoute
    ) -> None:
        self._public_url = parse_url(public_url)
        self._upstream = None if upstream is None else parse_url(upstream)
        self._questions = (weights_route(offers, is_wrapped=True), stat_route(offers))
        self._download = download

    def unwrap(self, request: WireRequest) -> tuple[WireRequest, GuardedRoute]:
        """The inner request. Raises `Refusal`: 400 for what does not parse, NOT_PROXIED for the rest."""
        url = parse_asked(request.query, self._public_url)
        own_path = find_path_below(url, self._public_url)
        query = (url.query or "").encode("ascii")
        if own_path is not None:
            raw_path = own_path.encode("ascii")
            if is_download(raw_path):
                return replace(request, raw_path=raw_path, query=query), self._download
            return self._question(request, raw_path, query)
        return self._question(request, self._path_at_provider(url).encode("ascii"), query)

    def _question(
        self, request: WireRequest, raw_path: bytes, query: bytes
    ) -> tuple[WireRequest, GuardedRoute]:
        route = next((one for one in self._questions if one.matches(raw_path)), None)
        if route is None:
            raise Refusal(Reason.NOT_PROXIED)
        parameters = split_query(query)
        keys = [(b"x-api-key", one[len(_KEY_PARAMETER) :]) for one in parameters if _is_key(one)]
        left = b"&".join(one for one in parameters if not _is_key(one))
        headers = (*request.headers, *keys)  # so that `extract` compares them all
        return replace(request, raw_path=raw_path, query=left, headers=headers), route

    def _path_at_provider(self, url: Url) -> str:
        """The path of a URL of the provider. Raises `Refusal` for any other URL."""
        if self._upstream is not None:
            path = find_path_below(url, self._upstream)
            if path is not None:
                return path
        if url.scheme == "https" and url.host in API_HOSTS and url.port == _HTTPS_PORT:
            return url.path
        raise Refusal(Reason.NOT_PROXIED)


def routes(unwrapping: Unwrapping, download: GuardedRoute) -> list[FaceRoute]:
    """The route of this face; `download` is the route of the download face."""

    def answer(receipt: Receipt) -> Answer | Awaitable[Answer]:
        if isinstance(receipt.admission.found, EngineAnswer):
            return answer_question(receipt)
        if download.answer is None:
            raise TypeError("the download route declares no answer")
        return download.answer(receipt)

    proxy = GuardedRoute(
        template=PROXY_PATH,
        methods=READS,
        action=Action.READ,
        matches=lambda raw_path: raw_path == PROXY_PATH.encode(),
        locate=_nowhere,
        unwrap=unwrapping.unwrap,
        answer=answer,
    )
    return [FaceRoute(proxy)]


def _nowhere(_request: WireRequest) -> Resource:
    """The path names no resource itself; if it were not unwrapped, it is refused (I1)."""
    raise Refusal(Reason.NOT_PROXIED)


def _is_key(parameter: bytes) -> bool:
    return parameter.startswith(_KEY_PARAMETER)
