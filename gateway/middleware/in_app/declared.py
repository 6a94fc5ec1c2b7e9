"""What the owner of an app declares of its routes. A path that nothing declares is refused (I1).

    file_route("/files/{model:path}/-/{package}/{file:path}")        a file of the cache; action read
    blob_route("/blobs/{md5}")                                       the same by digest
    model_route("/infer/{model:path}", max_body_bytes=20 << 20)      runs a model; action infer
    model_route("/infer", model=model_in_json("model_id"), max_body_bytes=1 << 20)
    caller_route("/me")                                              needs a valid key and nothing else
    unguarded_route("/health")                                       passes everybody; nothing is recorded

Paths are written as in the app. The names of models, packages and files are parsed by the same code as on our
own routes, after the caller is known. A body is bounded by `max_body_bytes`, and is read before the decision
only where the model's name has to be found in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.front_door.strict_json import parse_strict_object
from gateway.middleware.in_app.paths import PathTemplate
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.errors import BadNameError, Misconfigured, Reason, Refusal
from gateway.model.hidden_fields import shown
from gateway.model.listings import ModelListing
from gateway.model.names import parse_file_handle, parse_md5, parse_model_id, parse_package_id
from gateway.model.routes import GuardedRoute

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gateway.model.access import WireRequest
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Allowed, Found

READS = ("GET", "HEAD")


class RequestHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a function sees that finds the model of a request. Nothing in it has been decided about yet.

    `parameters` are those of the path. `body` is the whole body, of at most `max_body_bytes`.
    """

    method: str
    parameters: dict[str, str]
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def __repr__(self) -> str:
        return shown(self, hidden=("query", "headers", "body"))


class AppRoute(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One declared route. Without `guarded`, it is open to everybody."""

    path: PathTemplate
    methods: tuple[str, ...]
    guarded: GuardedRoute | None


def file_route(path: str, *, methods: Iterable[str] = READS) -> AppRoute:
    """A file of a package, for callers that may read it. Answer with `CacheFile`, which sends that file."""
    template = PathTemplate(path, "model", "package", "file")

    def locate(request: WireRequest) -> Resource:
        named = _named(template, request)
        try:
            return Resource(
                kind=ResourceKind.FILE,
                model=parse_model_id(named["model"]),
                package=parse_package_id(named["package"]),
                file=parse_file_handle(named["file"]),
            )
        except BadNameError as error:
            raise Refusal(Reason.MALFORMED_PATH) from error

    return _guarded(template, methods, Action.READ, locate)


def blob_route(path: str, *, methods: Iterable[str] = READS) -> AppRoute:
    """A file by its MD5, found along the caller's own packages. Answer with `CacheFile`."""
    template = PathTemplate(path, "md5")

    def locate(request: WireRequest) -> Resource:
        try:
            return Resource(kind=ResourceKind.BLOB, md5=parse_md5(_named(template, request)["md5"]))
        except BadNameError as error:
            raise Refusal(Reason.MALFORMED_PATH) from error

    return _guarded(template, methods, Action.READ, locate)


def model_route(
    path: str,
    *,
    methods: Iterable[str] = ("POST",),
    model: Callable[[RequestHead], str] | None = None,
    max_body_bytes: int = 0,
) -> AppRoute:
    """A route that runs a model, for callers that may infer it. The disk is not asked whether it is there.

    The model is `{model}` of the path, or what the function `model` finds. That one is called once for each
    attempt, must not wait, and may raise whatever it likes for a request that names none: the answer is 400.
    With it, the body is read before it is called. Take the model from `admitted`, never from the request
    again: what is read twice may be read differently.
    """
    template = PathTemplate(path, *(("model",) if model is None else ()))

    def locate(request: WireRequest) -> Resource:
        reason = Reason.MALFORMED_PATH if model is None else Reason.MALFORMED_BODY
        named = _named(template, request)
        try:
            text = named["model"] if model is None else _asked(model, request, named)
            return Resource(kind=ResourceKind.MODEL, model=parse_model_id(text))
        except BadNameError as error:
            raise Refusal(reason) from error

    return _guarded(
        template,
        methods,
        Action.INFER,
        locate,
        find=_find_name,
        body_bytes=max_body_bytes,
        reads_body=model is not None and max_body_bytes > 0,
    )


def caller_route(path: str, *, methods: Iterable[str] = READS, max_body_bytes: int = 0) -> AppRoute:
    """A route that every valid key may ask, such as one that tells the caller who it is."""
    template = PathTemplate(path)

    def locate(_request: WireRequest) -> Resource:
        return Resource(kind=ResourceKind.SELF)

    return _guarded(template, methods, Action.IDENTIFY, locate, body_bytes=max_body_bytes)


def unguarded_route(path: str, *, methods: Iterable[str] = READS) -> AppRoute:
    """A route that the guard leaves to the app: no key, no decision, no record. Never for the cache's bytes.

    WebSockets of this path are passed as well if the middleware has `websockets="pass"`.
    """
    return AppRoute(path=PathTemplate(path), methods=tuple(methods), guarded=None)


def model_in_json(name: str) -> Callable[[RequestHead], str]:
    """Finds the model in a member of the JSON object that the body is.

    JSON that two parsers could read differently is refused: a member that occurs twice, for example.
    """

    def find(request: RequestHead) -> str:
        found = parse_strict_object(request.body)[name]
        if not isinstance(found, str):
            raise TypeError(f"{name} is not a text")
        return found

    return find


async def _find_name(_request: WireRequest, allowed: Allowed) -> tuple[Found, Stamp]:
    """The right alone: a model that is permitted and not in the cache yet is about to be fetched."""
    if allowed.model is None:
        raise Refusal(Reason.NO_ROUTE)
    return ModelListing(model=allowed.model, packages=()), allowed.stamp


def _guarded(
    template: PathTemplate,
    methods: Iterable[str],
    action: Action,
    locate: Callable[[WireRequest], Resource],
    *,
    find: Callable[[WireRequest, Allowed], Awaitable[tuple[Found, Stamp]]] | None = None,
    body_bytes: int = 0,
    reads_body: bool = False,
) -> AppRoute:
    named = tuple(methods)
    if not named or isinstance(methods, str):
        raise Misconfigured(template.template, "methods: expected several, such as ['GET', 'HEAD']")
    if body_bytes < 0:
        raise Misconfigured(template.template, "max_body_bytes: expected a number of bytes")
    route = GuardedRoute(
        template=template.template,
        methods=named,
        action=action,
        matches=template.matches,
        locate=locate,
        find=find,
        body_bytes=body_bytes,
        reads_body=reads_body,
    )
    return AppRoute(path=template, methods=named, guarded=route)


def _named(template: PathTemplate, request: WireRequest) -> dict[str, str]:
    named = template.find(request.raw_path)
    if named is None:
        raise Refusal(Reason.MALFORMED_PATH)
    return named


def _asked(model: Callable[[RequestHead], str], request: WireRequest, named: dict[str, str]) -> str:
    """The model by the function of the app's owner. Whatever it raises is a request that names no model."""
    head = RequestHead(
        method=request.method,
        parameters=named,
        query=request.query,
        headers=request.headers,
        body=request.body,
    )
    try:
        found = model(head)
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(Reason.MALFORMED_BODY) from error
    if not isinstance(found, str):
        raise Refusal(Reason.MALFORMED_BODY)
    return found
