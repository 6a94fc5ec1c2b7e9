"""The download face: serves files by signed URL, as the engine fetches them.

    GET/HEAD /d/{model}/-/{package}/{file}?se=...&sig=...

The engine sends no key with a download; the URL is all that it has. So the caller is the key that the URL
names, and everything else is as on the content face: the same guard, the same records, the same bytes.
What else the engine depends on is done by delivery, for all faces alike: HEAD answers and never redirects;
a file that is not pinned yet delays the answer by at most four seconds; and large files without an MD5 offer
no ranges, because the engine would fetch them in ranges, compare their MD5 with the one it does not have,
and refuse them (`delivery/file_answer.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.credential.extract_link import extract_link
from gateway.delivery.file import PLAIN, Refused
from gateway.faces.content import READS, serve_file
from gateway.faces.problem import send_problem
from gateway.faces.route import FaceRoute
from gateway.middleware.guard import METER, RECEIPT
from gateway.middleware.trace import traceparent
from gateway.model.access import Action, Resource
from gateway.model.routes import GuardedRoute
from gateway.model.verdicts import RelayedFile
from gateway.resource.paths import is_download, parse_download

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from gateway.delivery.file import Means
    from gateway.middleware.meter import Meter
    from gateway.model.access import WireRequest
    from gateway.model.verdicts import Receipt
    from gateway.model_metadata.relay import Relay


def _locate(request: WireRequest) -> Resource:
    return parse_download(request.raw_path)


DOWNLOAD = GuardedRoute(
    template="/d/{model}/-/{package}/{file}",
    methods=READS,
    action=Action.READ,
    matches=is_download,
    locate=_locate,
    extract=extract_link,
)


def declared(relay: Relay | None) -> GuardedRoute:
    """The route of a download. A file that is not in the cache is looked up at the provider by `relay`."""
    return DOWNLOAD if relay is None else replace(DOWNLOAD, find=relay.find)


def served(means: Means, relay: Relay | None) -> ASGIApp:
    """The endpoint: files of the cache are sent as `means` says, others are relayed from the provider."""
    from_cache = serve_file(means)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        receipt: Receipt = scope[RECEIPT]
        if relay is None or not isinstance(receipt.admission.found, RelayedFile):
            await from_cache(scope, receive, send)
            return
        meter: Meter = scope[METER]
        trace = traceparent(receipt.admission.request.trace_id)
        result = await relay.send(receipt, receive, send, trace=trace)
        if isinstance(result, Refused):
            await send_problem(receipt, result.reason, result.headers, send)
        else:
            meter.cut = result

    return serve


def routes(means: Means = PLAIN, relay: Relay | None = None) -> list[FaceRoute]:
    """The routes of this face."""
    return [FaceRoute(declared(relay), served(means, relay))]
