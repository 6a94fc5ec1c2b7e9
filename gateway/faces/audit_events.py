"""The feed of the audit log over HTTP, and where the nodes of the fleet have theirs.

    GET/HEAD /audit/v1/events    records in the order of this node, as a page or a stream (scope audit:read)
    GET/HEAD /audit/v1/nodes     the nodes that have a feed, with their addresses (scope audit:read)

Each node serves its own records, so whoever wants all of them reads every node. That is why a tenant is told
their addresses as well: its records are where its requests came to. It is told nothing else about them.

Reading is recorded once per reader and minute (`audit/readings.py`); a stream has a record of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.delivery.document import answer_document
from gateway.faces.route import FaceRoute
from gateway.feed.selection import EVENTS_PATH, is_stream, parse_request, reader_of
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.routes import GuardedRoute
from gateway.model.verdicts import Ordered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.audit.readings import Readings
    from gateway.feed.events import EventFeed
    from gateway.model.access import WireRequest
    from gateway.model.answers import Answer
    from gateway.model.clocks import Clock
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Admission, Allowed, Receipt

NODES_PATH = "/audit/v1/nodes"


class FeedNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node that has a feed. Without a URL it is reached as this one was."""

    node: str
    url: str | None
    is_this: bool = False
    seen_at: str | None = None  # when it said last that it is there; for the operator's readers
    workers: int | None = None  # that answer requests now; the same


class OfPages:
    """The readings of pages: a stream is recorded by itself, since it may go on for days."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def recall(self, admission: Admission) -> Receipt | None:
        """As `Readings.recall`."""
        return None if is_stream(admission.request) else self._readings.recall(admission)

    def note(self, receipt: Receipt) -> None:
        """As `Readings.note`."""
        if not is_stream(receipt.admission.request):
            self._readings.note(receipt)


class EventsFace:
    """The routes of the feed."""

    def __init__(
        self,
        feed: EventFeed,
        readings: Readings,
        clock: Clock,
        list_nodes: Callable[[], Awaitable[list[FeedNode]]],
    ) -> None:
        self._feed = feed
        self._readings = readings
        self._clock = clock
        self._list_nodes = list_nodes

    def routes(self) -> list[FaceRoute]:
        """The routes."""
        events = GuardedRoute(
            template=EVENTS_PATH,
            methods=("GET", "HEAD"),
            action=Action.AUDIT_READ,
            matches=EVENTS_PATH.encode().__eq__,
            locate=_locate,
            find=self._find_events,
            answer=_carry_out,
            readings=OfPages(self._readings),
        )
        nodes = GuardedRoute(
            template=NODES_PATH,
            methods=("GET", "HEAD"),
            action=Action.AUDIT_READ,
            matches=NODES_PATH.encode().__eq__,
            locate=_locate,
            find=self._find_nodes,
            answer=_carry_out,
            readings=self._readings,  # a follower looks at it twice a minute
        )
        return [FaceRoute(events), FaceRoute(nodes)]

    async def _find_events(self, request: WireRequest, allowed: Allowed) -> tuple[Ordered, Stamp]:
        reader = reader_of(allowed.access.principal)
        asked = parse_request(request, reader, self._clock.now())
        cursor = await self._feed.begin(asked)

        async def answer(_: Receipt) -> Answer:
            return await self._feed.answer(asked, cursor, request)

        return Ordered(answer=answer, is_change=False, ends_with_client=True), allowed.stamp

    async def _find_nodes(self, _: WireRequest, allowed: Allowed) -> tuple[Ordered, Stamp]:
        reader = reader_of(allowed.access.principal)
        nodes = await self._list_nodes()
        if reader.tenant is not None:
            nodes = [FeedNode(node=one.node, url=one.url, is_this=one.is_this) for one in nodes]
        document = {"nodes": [_without_nothing(one) for one in nodes]}

        async def answer(_: Receipt) -> Answer:
            return answer_document(document)

        return Ordered(answer=answer, is_change=False), allowed.stamp


def _without_nothing(node: FeedNode) -> dict[str, object]:
    told = msgspec.to_builtins(node)
    return {name: value for name, value in told.items() if value is not None or name == "url"}


def _carry_out(receipt: Receipt) -> Awaitable[Answer]:
    found = receipt.admission.found
    if not isinstance(found, Ordered):
        raise TypeError("this route reads the log")
    answered: Awaitable[Answer] = found.answer(receipt)  # type: ignore[assignment]
    return answered


def _locate(_request: WireRequest) -> Resource:
    return Resource(kind=ResourceKind.SELF)
