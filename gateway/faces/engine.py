"""The engine face: model metadata, in the protocol of the engine's weights provider.

    GET/HEAD /models/v1/external/weights?modelId=...   packages, files, and a link for each
    GET/HEAD /models/v1/external/stat?modelId=...      whether this key may use the model, and what it is

An engine reaches it by `ROBOFLOW_API_HOST`, or wrapped in `/proxy?url=` (`faces/proxy.py`). Then every link
in the answer has that form, too.

`weights` lists packages as the content face does, so the caller has to be allowed to discover the model; a
package is included if the caller may read it. Servers take `stat` for the right to run a model, so it needs
the right to read the whole model.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gateway.credential.extract import extract
from gateway.delivery.document import answer_json
from gateway.engine.questions import parse_question
from gateway.faces.route import FaceRoute
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.routes import GuardedRoute
from gateway.model.verdicts import EngineAnswer
from gateway.model_metadata.sources import STAT_PATH, WEIGHTS_PATH
from gateway.platform.inquiry import ProviderRequest

if TYPE_CHECKING:
    from gateway.model.access import WireRequest
    from gateway.model.answers import Answer
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Allowed, Found, Receipt
    from gateway.model_metadata.caller_metadata import Offers
    from gateway.resource.disk_checks import SeenOnDisk

READS = ("GET", "HEAD")


def _locate(request: WireRequest) -> Resource:
    return Resource(kind=ResourceKind.MODEL, model=parse_question(request.query).model)


def answer_question(receipt: Receipt) -> Answer:
    """What was found, unchanged."""
    found = receipt.admission.found
    if not isinstance(found, EngineAnswer):
        raise TypeError("this route is for the engine's questions")
    return answer_json(found.body)


def weights_route(offers: Offers, *, is_wrapped: bool) -> GuardedRoute:
    """The route of `/weights`."""

    async def find(request: WireRequest, allowed: Allowed) -> tuple[Found, Stamp]:
        return await offers.weights(_inquiry(request, allowed), is_wrapped=is_wrapped)

    def find_now(request: WireRequest, allowed: Allowed, looks: SeenOnDisk) -> tuple[Found, Stamp] | None:
        return offers.weights_now(request, allowed, looks, is_wrapped=is_wrapped)

    return GuardedRoute(
        template=WEIGHTS_PATH,
        methods=READS,
        action=Action.DISCOVER,
        matches=lambda raw_path: raw_path == WEIGHTS_PATH.encode(),
        locate=_locate,
        find=find,
        find_now=find_now,
        answer=answer_question,
    )


def stat_route(offers: Offers) -> GuardedRoute:
    """The route of `/stat`."""

    async def find(request: WireRequest, allowed: Allowed) -> tuple[Found, Stamp]:
        return await offers.stat(_inquiry(request, allowed))

    def find_now(request: WireRequest, allowed: Allowed, looks: SeenOnDisk) -> tuple[Found, Stamp] | None:
        return offers.stat_now(partial(_inquiry, request, allowed), allowed, looks)

    return GuardedRoute(
        template=STAT_PATH,
        methods=READS,
        action=Action.READ,
        matches=lambda raw_path: raw_path == STAT_PATH.encode(),
        locate=_locate,
        find=find,
        find_now=find_now,
        answer=answer_question,
    )


def routes(offers: Offers) -> list[FaceRoute]:
    """The routes of this face."""
    return [FaceRoute(weights_route(offers, is_wrapped=False)), FaceRoute(stat_route(offers))]


def _inquiry(request: WireRequest, allowed: Allowed) -> ProviderRequest:
    """Parse the request once more: the guard keeps no credential."""
    return ProviderRequest(
        request=request,
        allowed=allowed,
        question=parse_question(request.query),
        credential=extract(request.headers, request.query),
    )
