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
from gateway.delivery.file_answer import PLAIN
from gateway.faces.content import READS, file_answers
from gateway.faces.route import FaceRoute
from gateway.middleware.refusing import answer_or_problem
from gateway.model.access import Action, Resource
from gateway.model.routes import GuardedRoute
from gateway.model.verdicts import RelayedFile
from gateway.resource.paths import is_download, parse_download

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway.delivery.file_answer import Means
    from gateway.model.access import WireRequest
    from gateway.model.answers import Answer
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


def download_route(means: Means = PLAIN, relay: Relay | None = None) -> GuardedRoute:
    """The route of a download: files of the cache are sent as `means` says.

    A file that is not in the cache is looked up at the provider, and streamed from there, by `relay`.
    """
    from_cache = file_answers(means)
    if relay is None:
        return replace(DOWNLOAD, answer=from_cache)

    async def relayed(receipt: Receipt) -> Answer:
        return answer_or_problem(await relay.answer(receipt), receipt)

    def answer(receipt: Receipt) -> Answer | Awaitable[Answer]:
        is_relayed = isinstance(receipt.admission.found, RelayedFile)
        return relayed(receipt) if is_relayed else from_cache(receipt)

    return replace(DOWNLOAD, find=relay.find, answer=answer)


def routes(means: Means = PLAIN, relay: Relay | None = None) -> list[FaceRoute]:
    """The routes of this face."""
    return [FaceRoute(download_route(means, relay))]
