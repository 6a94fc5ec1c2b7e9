"""The front door: requests to unmodified inference servers, decided and recorded before they are sent there.

    POST {mount}/infer/object_detection, GET {mount}/model/registry, ...

The table of the server's routes says for each what it loads, with which key, and what becomes of its answer
(`front_door/table.py`). The guard decides `infer` for every model of a request. The request that goes out is
written anew: the key of the caller does not pass, unless it is one of the platform's own.

The server is asked once. A request is tried on another server only where nothing of it was sent. The answer
is streamed. Its head is checked first: if the server used a model that was not authorised, nothing of it is
passed on.

With the mount at the root our own routes come first. Their first segments are reserved: a model of a data set
with such a name cannot be named in the path there, and such a request is refused with a hint.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_to_bytes, urlencode

import msgspec

from gateway.adapters.inference_server import InferenceFailed
from gateway.faces.route import FaceRoute
from gateway.front_door import answers
from gateway.front_door.matching import match, methods_of
from gateway.front_door.named_models import MEMBER, with_known_ids, with_known_ids_in
from gateway.front_door.origins import cors_headers, preflight
from gateway.front_door.reading import find_key_in_head, read
from gateway.front_door.values import Answering, BodyKind
from gateway.front_door.writing import write
from gateway.middleware.bodies import IDLE_SECONDS, WHOLE_SECONDS
from gateway.model.answers import Answer, Streamed
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.header_block import Headers
from gateway.model.inference import Outbound
from gateway.model.routes import Asked, ForwardedRoute
from gateway.model.verdicts import Ending, Forwarded, ServerOutcome
from gateway.transfers import ClientGoneError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence

    from gateway.adapters.image_fetch import ImageFetcher
    from gateway.adapters.inference_server import InferenceClient, UpstreamAnswer
    from gateway.front_door.dependencies import Dependencies
    from gateway.front_door.servers import BalancedServer, Servers, Use
    from gateway.front_door.table import ServerTable
    from gateway.front_door.values import InferenceRequest, Matched
    from gateway.front_door.workflows.blocks import BlockAnswers
    from gateway.front_door.workflows.describer import Describer
    from gateway.front_door.workflows.saved import Saved
    from gateway.model.access import Credential, Principal, WireRequest
    from gateway.model.clocks import MonotonicClock
    from gateway.model.names import ModelId, TenantId
    from gateway.model.routes import Forwarding, Receive
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Receipt
    from gateway.telemetry import Telemetry

    MayInfer = Callable[[Receipt, Credential, Sequence[ModelId]], Awaitable[tuple[frozenset[ModelId], Stamp]]]

T = TypeVar("T")

TEMPLATE = "{mount}"
METHODS = ("GET", "POST", "OPTIONS")
RESERVED = frozenset(
    {
        "v1",
        "d",
        "proxy",
        "models",
        "hooks",
        "health",
        "check",
        "access",
        "admin",
        "audit",
        ".well-known",
    }
)
"""First segments of our own routes, those to come included. At the root, they are no data sets' names."""

NAMING_ROUTES = frozenset({"/sam2/embed_image", "/sam3/embed_image"})
"""Whose answers have the name that an image is kept under: the tenant gets its own there."""

WATCH_AFTER_SECONDS = 0.02  # how soon a client that left is noticed, while its request is under way
MAX_SERVERS = 3  # that one request is tried on, where the ones before could not be reached
MAX_WHOLE_BYTES = 4 << 20  # of an answer that is read whole: a list of models, or an error
SMALL_BYTES = 64 << 10
"""An answer that announces no more is read whole before it is passed on: it takes one write instead of
several, and where the server breaks off, nothing was sent. Predictions are such answers."""

LIST_PATH = "/model/registry"


class FrontDoor(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What all requests of this face need."""

    mount: bytes  # without a slash at its end; empty at the root
    max_body_bytes: int
    origins: tuple[str, ...]
    table: ServerTable
    servers: Servers
    client: InferenceClient
    service_key: str | None
    secret: bytes  # of the MACs that make one name of two tenants two names in a server
    may_infer: MayInfer
    images: ImageFetcher
    dependencies: Dependencies | None  # None: there is no provider that could be asked
    describer: Describer
    saved: Saved | None  # None: there is no platform that could be asked
    block_answers: BlockAnswers
    requests: Mapping[Answering, Callable[[FrontDoor, WireRequest, Receive, Matched], Forwarding]]
    is_ready: Callable[[], bool]
    clock: MonotonicClock
    telemetry: Telemetry


def route_of(door: FrontDoor) -> FaceRoute:
    """The route of this face. At the root it has to be the last one: it matches every path."""
    inside = door.mount + b"/"
    return FaceRoute(
        ForwardedRoute(
            template=TEMPLATE,
            methods=METHODS,
            max_body_bytes=door.max_body_bytes,
            matches=lambda raw_path: raw_path.startswith(inside),
            allowed=lambda raw_path: (*methods_of(door.table, raw_path[len(door.mount) :]), "OPTIONS"),
            begin=lambda request, receive: begin(door, request, receive),
            beside=lambda request: cors_headers(request.header(b"origin"), door.origins),
            answer=_answer,
        )
    )


async def _answer(receipt: Receipt) -> Answer:
    found = receipt.admission.found
    if not isinstance(found, Forwarded):
        raise TypeError("this route is for requests to inference servers")
    answer = await found.answer(receipt)
    if not isinstance(answer, Answer):
        raise TypeError("what was found is no answer")
    return answer


def begin(door: FrontDoor, request: WireRequest, receive: Receive) -> Forwarding:
    """Find the server's route, from the head alone. Raises `Refusal`."""
    raw_path = request.raw_path[len(door.mount) :]
    if not door.mount and is_reserved(raw_path):
        raise Refusal(Reason.RESERVED_PATH)
    if request.method == "OPTIONS":
        return AnsweredHere(preflight(request.headers, door.origins))
    matched = match(door.table, request.method, raw_path)
    if matched.route.body is BodyKind.NONE and _announces_a_body(request):
        raise Refusal(Reason.MALFORMED_BODY)
    find = door.requests.get(matched.route.answering)
    if find is not None:
        return find(door, request, receive, matched)
    return ForwardedRequest(door, request, receive, matched)


def is_reserved(raw_path: bytes) -> bool:
    """Whether the first segment is one of our own routes', as the server would decode it."""
    return unquote_to_bytes(raw_path).lstrip(b"/").partition(b"/")[0].decode("latin-1") in RESERVED


def _announces_a_body(request: WireRequest) -> bool:
    length = request.header(b"content-length") or b""
    return bool(length.lstrip(b"0")) or request.header(b"transfer-encoding") is not None


class AnsweredHere:
    """A request that the gateway answers whatever else is in it: a preflight."""

    template = TEMPLATE
    reads_whole_body = False
    upstream = None
    stamp = None

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def own_answer(self) -> Answer:
        """The answer."""
        return self._answer

    def key_in_head(self) -> None:
        """No key is needed."""

    def ask(self, body: bytes | None) -> Asked:  # noqa: ARG002 -- as every `Forwarding`
        """Nothing is asked."""
        raise Refusal(Reason.NO_ROUTE)

    async def close(self) -> None:
        """Nothing is open."""


class ForwardedRequest:
    """One request on its way: a `Forwarding`."""

    _names_model = MEMBER  # what stands before the id of a model in its answer

    def __init__(self, door: FrontDoor, request: WireRequest, receive: Receive, matched: Matched) -> None:
        self.template = TEMPLATE + matched.route.path
        self.reads_whole_body = matched.route.body is BodyKind.JSON
        self._door, self._request, self._receive, self._matched = door, request, receive, matched
        self._inquiry: InferenceRequest | None = None
        self._use = ExitStack()  # of the server: entered when the request is sent, left when it is over
        self._answer: UpstreamAnswer | None = None
        self._whole: bytes | None = None  # the body of its answer, where it is read whole
        self._pieces: AsyncIterator[bytes] | None = None  # of an answer that is passed on
        self._first = b""
        self._dependencies: set[ModelId] = set()  # what the provider said that the models load besides
        self._lists: list[bytes] | None = None
        self._secrets: tuple[str, ...] = ()
        self._image_name: str | None = None
        self._body_has_begun = False
        self._body_has_ended = asyncio.Event()
        self._server: BalancedServer | None = None
        self._sent_at = self._heard_at = 0.0
        self._received_bytes = 0
        self.stamp: Stamp | None = None

    # What the middleware asks for

    def own_answer(self) -> Answer | None:
        """The answer of the gateway itself to a request that needs no key; None for all others."""
        answering = self._matched.route.answering
        if answering is Answering.INFO:
            return answers.info_answer()
        if answering is Answering.HEALTH:
            return answers.health_answer(self._matched.route.path, is_ready=self._door.is_ready())
        return None

    def key_in_head(self) -> Credential | None:
        """The key in the head of the request, if there is one. Raises `Refusal`."""
        return find_key_in_head(self._request)

    def ask(self, body: bytes | None) -> Asked:
        """What the request asks for. Raises `Refusal`."""
        inquiry = self._inquiry = read(self._door.table, self._matched, self._request, body)
        if inquiry.credential is None:
            raise Refusal(Reason.NO_CREDENTIAL)
        return Asked(
            credential=inquiry.credential,
            models=inquiry.models,
            find_dependencies=self._find_dependencies,
            answer=self.answer,
        )

    @property
    def upstream(self) -> ServerOutcome | None:
        """What the inference server did with it so far, for the record of the outcome."""
        if self._server is None:
            return None
        return ServerOutcome(
            server=self._server.name,
            status=0 if self._answer is None else self._answer.status,
            bytes_received=self._received_bytes,
            milliseconds=(self._heard_at - self._sent_at) * 1000,
        )

    async def close(self) -> None:
        """Close the connection to the server, if the answer was not read to its end."""
        try:
            if self._answer is not None:
                await self._answer.close()
        finally:
            self._use.close()

    async def answer(self, receipt: Receipt) -> Answer:
        """The server's answer. It is asked once, however often the request is decided."""
        inquiry = self._inquiry
        if inquiry is None or inquiry.credential is None:
            raise TypeError("nothing was asked")
        principal = receipt.admission.allowed.access.principal
        if self._matched.route.answering is Answering.REGISTRY:
            if self._lists is None:
                self._lists = await self._while_client_stays(self._ask_all(principal, inquiry.credential))
            return await self._list(self._lists, receipt, inquiry.credential)
        answer = self._answer
        if answer is None:
            answer = await self._while_client_stays(self._fetch(principal, inquiry))
        return await self._pass(answer, receipt, inquiry, inquiry.credential)

    # To the server

    async def _find_dependencies(self, principal: Principal, model: ModelId) -> Sequence[ModelId]:
        """What the server would load besides, with the key that goes in. Without a key, nothing is sent."""
        if self._door.dependencies is None or self._inquiry is None or self._inquiry.credential is None:
            return ()
        key = self._find_key(principal, self._inquiry.credential)
        found = () if key is None else await self._door.dependencies.find(model, key)
        self._dependencies.update(found)
        return found

    def _find_key(self, principal: Principal, credential: Credential) -> str | None:
        return credential.secret if principal.is_of_platform else self._door.service_key

    def _key(self, principal: Principal, credential: Credential) -> str:
        """The key that goes in: the platform's own, or the operator's for keys and tokens of ours."""
        key = self._find_key(principal, credential)
        if key is None:
            raise Refusal(Reason.NO_SERVICE_KEY)
        self._secrets = (key, credential.secret)
        return key

    async def _fetch(self, principal: Principal, inquiry: InferenceRequest) -> UpstreamAnswer:
        """Send the request, and return its answer once it has begun; a small one once it is whole."""
        answer = self._answer = await self._ask(principal, inquiry)
        self._verify_models(answer, inquiry)
        if answer.length is not None and answer.length <= SMALL_BYTES:
            self._whole = await self._join(answer)
        return answer

    async def _ask(self, principal: Principal, inquiry: InferenceRequest) -> UpstreamAnswer:
        """Send the request, and return its answer once it has begun."""
        whose = principal.whose
        if inquiry.credential is None or principal.tenant is None or whose is None:
            raise Refusal(Reason.NOT_PERMITTED)
        key = self._key(principal, inquiry.credential)
        images: Sequence[str] = ()
        if inquiry.images:
            urls = [image.url for image in inquiry.images]
            images = await self._door.images.fetch(urls, principal.image_hosts, tenant=principal.tenant)
        outbound = write(
            inquiry,
            self._request,
            key=key,
            whose=whose,
            secret=self._door.secret,
            images=images,
        )
        self._image_name = outbound.image_name
        return await self._send(outbound, str(inquiry.models[0]), principal.tenant)

    async def _send(self, outbound: Outbound, model: str, tenant: TenantId) -> UpstreamAnswer:
        is_streamed = outbound.body is None and self._matched.route.body is BodyKind.STREAM
        tried: list[BalancedServer] = []
        for _ in range(MAX_SERVERS):
            server = self._door.servers.choose(model, tenant, tried=tried)
            tried.append(server)
            self._server, self._sent_at = server, self._door.clock.monotonic()
            self._heard_at = self._sent_at
            use = self._use.enter_context(server.in_use(tenant))
            try:
                answer = await self._door.client.send(
                    server.url,
                    outbound,
                    self._pieces_of_body() if is_streamed else None,
                    length=self._announced_length() if is_streamed else None,
                )
            except InferenceFailed as failure:
                self._note_failure(use, failure)
                self._use.close()
                if failure.was_sent or self._body_has_begun:
                    break
                continue
            use.succeeded()
            self._body_has_ended.set()  # where the answer came before it, the rest is not sent
            self._heard_at = self._door.clock.monotonic()
            return answer
        raise Refusal(Reason.INFERENCE_UNAVAILABLE)

    def _note_failure(self, use: Use, failure: InferenceFailed) -> None:
        if failure.is_of_server:
            use.failed()
        self._door.telemetry.inference_failed(use.server.name, failure.why)

    def _announced_length(self) -> int | None:
        length = self._request.header(b"content-length")
        return None if length is None else int(length)

    async def _pieces_of_body(self) -> AsyncIterator[bytes]:
        """The client's body as it comes. Raises for one that is too long or too slow, or without an end."""
        self._body_has_begun, total, has_more = True, 0, True
        loop = asyncio.get_running_loop()
        end = loop.time() + WHOLE_SECONDS
        while has_more:
            try:
                async with asyncio.timeout_at(min(end, loop.time() + IDLE_SECONDS)):
                    message = await self._receive()
            except TimeoutError as error:
                raise Refusal(Reason.SLOW_REQUEST) from error
            if message["type"] != "http.request":
                raise ClientGoneError
            piece, has_more = message.get("body", b""), message.get("more_body", False)
            total += len(piece)
            if total > self._door.max_body_bytes:
                raise Refusal(Reason.BODY_TOO_LARGE)
            yield piece
        self._body_has_ended.set()

    async def _while_client_stays(self, work: Coroutine[Any, Any, T]) -> T:
        """What this work returns. It ends when the client leaves: then the server's connection closes."""
        if self._matched.route.body is not BodyKind.STREAM:
            self._body_has_ended.set()
        return await while_client_stays(work, self._client_leaves)

    async def _client_leaves(self) -> None:
        await self._body_has_ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    # From the server

    async def _pass(
        self, answer: UpstreamAnswer, receipt: Receipt, inquiry: InferenceRequest, credential: Credential
    ) -> Answer:
        self._verify_models(answer, inquiry)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            body = await self._read_whole(answer)
            return answers.error_answer(answer.status, body, inquiry, self._secrets, record=receipt.record_id)
        if answer.status != HTTPStatus.OK:
            raise Refusal(Reason.INFERENCE_UNAVAILABLE)
        if self._matched.route.answering is Answering.MODELS:
            return await self._list([await self._read_whole(answer)], receipt, credential)
        headers = answers.pass_headers(answer.headers)
        if self._image_name is not None and self._matched.route.path in NAMING_ROUTES:
            body = answers.name_image(await self._read_whole(answer), self._image_name)
            return Answer(answer.status, _with_length(headers, len(body)), body)
        known = self._known_ids(receipt, inquiry) if answers.is_json(headers) else None
        if self._whole is not None:
            body = self._whole
            if known is not None:
                body = with_known_ids_in(body, known, self._on_other_model, self._names_model)
            return Answer(answer.status, headers, body, Ending.RELAYED)
        if self._pieces is None:
            self._pieces = self._pieces_of(answer)
            if known is not None:
                self._pieces = with_known_ids(self._pieces, known, self._on_other_model, self._names_model)
            # The first piece nearly always has the names of models in it: what is wrong with it is answered.
            self._first = await self._while_client_stays(_first_of(self._pieces))
        return Answer(
            answer.status,
            headers,
            Streamed(
                pieces=self._streamed(self._pieces),
                length=answer.length,
                close=_do_nothing,  # the middleware closes the request: it may be decided anew before
                ending=Ending.RELAYED,
            ),
        )

    def _verify_models(self, answer: UpstreamAnswer, inquiry: InferenceRequest) -> None:
        """Raises `Refusal` if the server used a model that was not authorised."""
        reported = [value for name, value in answer.headers if name == b"x-model-id"]
        try:
            answers.verify_reported(reported, inquiry)
        except Refusal:
            self._door.telemetry.unexpected_model(self._server.name if self._server else "-")
            raise

    async def _read_whole(self, answer: UpstreamAnswer, most_bytes: int = MAX_WHOLE_BYTES) -> bytes:
        if self._whole is None:
            self._whole = await self._while_client_stays(self._join(answer, most_bytes))
        return self._whole

    async def _join(self, answer: UpstreamAnswer, most_bytes: int = MAX_WHOLE_BYTES) -> bytes:
        body = bytearray()
        try:
            async for piece in self._pieces_of(answer):
                body += piece
                if len(body) > most_bytes:
                    raise Refusal(Reason.INFERENCE_UNAVAILABLE)
        except InferenceFailed as failure:
            raise Refusal(Reason.INFERENCE_UNAVAILABLE) from failure
        return bytes(body)

    def _known_ids(self, receipt: Receipt, inquiry: InferenceRequest) -> set[str]:
        """The ids that were authorised: a prediction names no model but these."""
        known: set[str] = {*inquiry.reported, *self._dependencies}
        if receipt.admission.allowed.model is not None:
            known.add(receipt.admission.allowed.model)
        return known

    def _on_other_model(self) -> None:
        """The server used a model that was not authorised, if it could be known which it would use.

        Without a provider that could be asked, nobody knows what is behind a name: then it is not told.
        """
        if self._door.dependencies is not None:
            self._door.telemetry.unexpected_model(self._server.name if self._server else "-")
            raise Refusal(Reason.UNEXPECTED_MODEL)

    async def _streamed(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces of an answer that has begun. Where the server breaks off, ours is cut."""
        yield self._first
        try:
            async for piece in pieces:
                yield piece
        except InferenceFailed as failure:
            raise Unavailable("inference", failure.why, Reason.INFERENCE_UNAVAILABLE) from failure

    async def _pieces_of(self, answer: UpstreamAnswer) -> AsyncIterator[bytes]:
        async for piece in answer.chunks():
            self._received_bytes += len(piece)
            self._heard_at = self._door.clock.monotonic()
            yield piece

    # Lists of models

    async def _ask_all(self, principal: Principal, credential: Credential) -> list[bytes]:
        """The lists of all servers that this tenant's requests may go to; those that answer are enough."""
        key = self._key(principal, credential)
        refused = self._door.table.legacy_refuses
        target = f"{LIST_PATH}?{urlencode({refused.parameter: refused.value})}".encode("ascii")
        headers = ((b"authorization", b"Bearer " + key.encode("ascii")),)
        outbound = Outbound(method="GET", target=target, headers=headers, body=None)
        servers = self._door.servers.all_for(principal.tenant)
        lists = await asyncio.gather(*(self._list_of(one, outbound, principal.tenant) for one in servers))
        found = [one for one in lists if one is not None]
        if not found:
            raise Refusal(Reason.INFERENCE_UNAVAILABLE)
        return found

    async def _list_of(
        self, server: BalancedServer, outbound: Outbound, tenant: TenantId | None
    ) -> bytes | None:
        try:
            with server.in_use(tenant) as use:
                try:
                    answer = await self._door.client.send(server.url, outbound)
                except InferenceFailed as failure:
                    self._note_failure(use, failure)
                    return None
                use.succeeded()
                try:
                    is_list = answer.status == HTTPStatus.OK
                    return await self._join(answer) if is_list else None
                finally:
                    await answer.close()
        except Refusal:
            return None

    async def _list(self, bodies: Sequence[bytes], receipt: Receipt, credential: Credential) -> Answer:
        """The models of these lists that the caller may infer."""
        self.stamp = None

        async def may_infer(model: ModelId) -> bool:
            models = self._door.table.models_of(model)
            allowed, stamp = await self._door.may_infer(receipt, credential, models)
            self.stamp = stamp if self.stamp is None else self.stamp.joined(stamp)
            return allowed.issuperset(models)

        return await answers.keep_models(bodies, may_infer)


async def while_client_stays(
    work: Coroutine[Any, Any, T], client_leaves: Callable[[], Coroutine[Any, Any, None]]
) -> T:
    """What this work returns. Raises `ClientGoneError`, and ends the work, once `client_leaves` returns.

    Whether the client leaves is watched by a task of its own, which most predictions are too short to need.
    The work stays in the task of its request, where it takes fewer turns of the event loop than in another.
    """
    task, has_left, is_over = asyncio.current_task(), False, False
    if task is None:
        raise RuntimeError("there is no task that could wait")
    before = task.cancelling()
    leaving: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal leaving
        leaving = asyncio.ensure_future(client_leaves())
        leaving.add_done_callback(leave)

    def leave(waiting: asyncio.Task[None]) -> None:
        nonlocal has_left
        if waiting.cancelled():
            return
        waiting.exception()  # an error says the same, and is retrieved, so that asyncio does not warn
        if is_over:  # both ended in one turn of the event loop, and the task does something else by now
            return
        has_left = True
        task.cancel()

    watching = asyncio.get_running_loop().call_later(WATCH_AFTER_SECONDS, watch)
    try:
        return await work
    except asyncio.CancelledError:
        if has_left and task.uncancel() <= before:
            raise ClientGoneError from None
        raise  # cancelled by somebody else, too
    finally:
        is_over = True
        watching.cancel()
        if leaving is not None:
            leaving.remove_done_callback(leave)
            leaving.cancel()


def _with_length(headers: Headers, length: int) -> Headers:
    kept = [pair for pair in headers.pairs if pair[0] != b"content-length"]
    return Headers.of(*kept, (b"content-length", b"%d" % length))


async def _first_of(pieces: AsyncIterator[bytes]) -> bytes:
    """The first piece of an answer; of one without a body, nothing. Raises `Refusal`."""
    try:
        return await anext(pieces, b"")
    except InferenceFailed as failure:
        raise Refusal(Reason.INFERENCE_UNAVAILABLE) from failure


async def _do_nothing() -> None:
    return
