"""The content face: lists models and packages, and serves files and blobs to authorized callers.

    GET/HEAD /v1/models                              the models that the caller may discover, paged
    GET/HEAD /v1/models/{model}                      one model and its packages
    GET/HEAD /v1/models/{model}/-/{package}          one package and its files, paged
    GET/HEAD /v1/models/{model}/-/{package}/{file}   the file itself
    GET/HEAD /v1/blobs/{md5}                         the same, found by digest among the caller's own packages

Links are paths, not URLs: the name by which a client reaches the gateway may differ, and the Host header
decides nothing (I4).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from msgspec.structs import replace

from gateway.delivery.document import answer_document
from gateway.delivery.file_answer import PLAIN, answer_file
from gateway.faces.route import FaceRoute
from gateway.middleware.refusing import answer_or_problem
from gateway.model.access import Action, Page, Resource, ResourceKind
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.escapes import decode_once
from gateway.model.listings import CataloguePage, ModelListing, PackageListing
from gateway.model.names import parse_file_handle, parse_model_id
from gateway.model.queries import split_query
from gateway.model.routes import GuardedRoute
from gateway.resource.paths import (
    BLOBS_PATH,
    MODELS_PATH,
    blob_link,
    file_link,
    locate,
    model_link,
    parse_model_tail,
    shape_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.delivery.file_answer import Means
    from gateway.model.access import WireRequest
    from gateway.model.answers import Answer
    from gateway.model.verdicts import Found, Receipt

READS = ("GET", "HEAD")
DEFAULT_PAGE = 100
MAX_PAGE = 1000
"""Models on one page: bounds the answer to about a megabyte, and its decisions to a few ms. Also files of a
package on one page, each of which is checked on disk: 20 us. A package's page has this many unless fewer are
asked for, so that hardly any package needs two."""

_PARAMETERS = frozenset({b"limit", b"after"})
_LIMIT = re.compile(r"[1-9][0-9]{0,3}")  # matched in full, so that each number has one spelling


def _locate(request: WireRequest) -> Resource:
    return locate(request.raw_path)


def _locate_file(request: WireRequest) -> Resource:
    """As `_locate`, of a path that `_is_file` matches."""
    return parse_model_tail(request.raw_path[len(MODELS_PATH) + 1 :])


def _locate_catalogue(request: WireRequest) -> Resource:
    return Resource(kind=ResourceKind.CATALOGUE, page=_parse_page(request.query, parse_model_id))


def _locate_package(request: WireRequest) -> Resource:
    page = _parse_page(request.query, parse_file_handle, MAX_PAGE)
    return replace(locate(request.raw_path), page=page)


def _parse_page(query: bytes, parse_name: Callable[[str], str], default: int = DEFAULT_PAGE) -> Page:
    """Parse `limit` and `after`, each once at most. Other parameters are ignored."""
    try:
        asked = _asked(query)
        after = parse_name(asked[b"after"]) if b"after" in asked else None
        limit = _parse_limit(asked[b"limit"]) if b"limit" in asked else default
    except BadNameError as error:
        raise Refusal(Reason.MALFORMED_QUERY) from error
    return Page(after=after, limit=limit)


def _asked(query: bytes) -> dict[bytes, str]:
    """The values of the parameters that this face reads."""
    if not query.isascii():
        raise BadNameError("a query is ASCII")
    asked: dict[bytes, str] = {}
    for field in split_query(query):
        raw_name, _, raw_value = field.partition(b"=")
        name = unquote_to_bytes(raw_name)
        if name in _PARAMETERS:
            if name in asked:  # either could be meant
                raise BadNameError("a query parameter came twice")
            asked[name] = decode_once(raw_value.replace(b"+", b" "))
    return asked


def _parse_limit(text: str) -> int:
    if not _LIMIT.fullmatch(text) or int(text) > MAX_PAGE:
        raise BadNameError(f"a page has 1 to {MAX_PAGE} models")
    return int(text)


def _is_catalogue(raw_path: bytes) -> bool:
    return raw_path == MODELS_PATH


def _is_blob(raw_path: bytes) -> bool:
    return raw_path.startswith(BLOBS_PATH + b"/")


def _is_file(raw_path: bytes) -> bool:
    """As `shape_of`, without its objects: this is asked of every request."""
    if not raw_path.startswith(MODELS_PATH + b"/"):
        return False
    end_of_model = raw_path.find(b"/-/", len(MODELS_PATH))
    return end_of_model >= 0 and raw_path.find(b"/", end_of_model + 3) >= 0


def _has_shape(kind: ResourceKind) -> Any:
    def matches(raw_path: bytes) -> bool:
        return raw_path.startswith(MODELS_PATH + b"/") and shape_of(raw_path) is kind

    return matches


def answer_listing(receipt: Receipt) -> Answer:
    """What was found, as JSON."""
    found = receipt.admission.found
    next_page = _next_page(found, receipt.admission.allowed.access.resource)
    return answer_document(describe(found), next_page=next_page)


def file_answers(means: Means) -> Callable[[Receipt], Answer]:
    """What answers with the bytes of a file."""

    def answer(receipt: Receipt) -> Answer:
        return answer_or_problem(answer_file(receipt, means), receipt)

    return answer


def describe(found: Found) -> dict[str, Any]:
    """What was found, as a JSON value: names, sizes, digests and links, nothing of the disk's layout."""
    match found:
        case CataloguePage():
            models = [{"id": one, "link": model_link(one)} for one in found.models]
            return {"models": models, "after": found.after}
        case ModelListing():
            packages = [{"id": one, "link": model_link(found.model, one)} for one in found.packages]
            return {"id": found.model, "link": model_link(found.model), "packages": packages}
        case PackageListing():
            link = model_link(found.model, found.package)
            return {
                "model": found.model,
                "package": found.package,
                "link": link,
                "files": [
                    {
                        "file": one.handle,
                        "size": one.size,
                        "md5": one.md5,
                        "link": file_link(link, one.handle),
                        "blob": blob_link(one.md5) if one.md5 else None,
                    }
                    for one in found.files
                ],
                "after": found.after,
            }
        case _:
            raise TypeError(f"{type(found).__name__} has no document on this face")


def _next_page(found: Found, asked: Resource) -> str | None:
    if not isinstance(found, CataloguePage | PackageListing) or found.after is None or asked.page is None:
        return None
    path = "/v1/models" if isinstance(found, CataloguePage) else model_link(found.model, found.package)
    return f"{path}?limit={asked.page.limit}&after={quote(found.after, safe='')}"


CATALOGUE = GuardedRoute(
    template="/v1/models",
    methods=READS,
    action=Action.DISCOVER,
    matches=_is_catalogue,
    locate=_locate_catalogue,
    answer=answer_listing,
)
MODEL = GuardedRoute(
    template="/v1/models/{model}",
    methods=READS,
    action=Action.DISCOVER,
    matches=_has_shape(ResourceKind.MODEL),
    locate=_locate,
    answer=answer_listing,
)
PACKAGE = GuardedRoute(
    template="/v1/models/{model}/-/{package}",
    methods=READS,
    action=Action.DISCOVER,
    matches=_has_shape(ResourceKind.PACKAGE),
    locate=_locate_package,
    answer=answer_listing,
)
FILE = GuardedRoute(
    template="/v1/models/{model}/-/{package}/{file}",
    methods=READS,
    action=Action.READ,
    matches=_is_file,
    locate=_locate_file,
)
BLOB = GuardedRoute(
    template="/v1/blobs/{md5}", methods=READS, action=Action.READ, matches=_is_blob, locate=_locate
)


def routes(means: Means = PLAIN) -> list[FaceRoute]:
    """The routes of this face; `means` says how files are sent."""
    files = file_answers(means)
    return [
        FaceRoute(replace(FILE, answer=files)),  # first, as it is asked for most
        FaceRoute(replace(BLOB, answer=files)),
        FaceRoute(PACKAGE),
        FaceRoute(MODEL),
        FaceRoute(CATALOGUE),
    ]
