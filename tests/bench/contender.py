"""A contender: a server that is sent the same requests as every other.

Before anything is measured, each has to give the right answers to the requests that it will be measured with
(`client_requests.py` says which), and each that has a guard has to refuse an unknown key and a request
without one: a fast server that serves wrong bytes, or serves without a key, would win every round.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client_requests import Client, Request, RequestSet
    from workload import Item, Workload

SECONDS = 60.0
REFUSALS = (http.client.UNAUTHORIZED, http.client.FORBIDDEN, http.client.NOT_FOUND)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


@dataclass(frozen=True)
class Contender:
    """A server under way. `roots` are the process trees of which it consists."""

    name: str
    title: str
    port: int
    roots: tuple[int, ...]
    is_guarded: bool = True

    def renamed(self, name: str) -> Contender:
        """The same server under another name."""
        return replace(self, name=name)

    def answers(self, requests: Sequence[Request]) -> list[Answer]:
        """Send these one after the other on one connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            return [_answer(connection, request) for request in requests]
        finally:
            connection.close()

    def verify(self, sent: RequestSet, *, step: int = 1) -> list[tuple[Request, Answer]]:
        """Send one in `step` of these requests. Raises when an answer is not the one that the set expects."""
        requests = [request.refreshed() for request in sent.requests[::step]]
        found = list(zip(requests, self.answers(requests), strict=True))
        for request, answer in found:
            if (fault := sent.expected.fault(request, answer)) is not None:
                raise RuntimeError(
                    f"{self.title} answers {request.method} {request.target} of the set {sent.name!r} with "
                    f"{answer.status} and {len(answer.body):,} bytes: {fault}"
                )
        return found

    def verify_refusals(self, refused: Sequence[Request]) -> None:
        """Raises when one of these requests, which have no key that counts, is served."""
        for request, answer in zip(refused, self.answers(refused), strict=True):
            if answer.status not in REFUSALS:
                raise RuntimeError(
                    f"{self.title} answers {answer.status} to {request.target} with a wrong key or none: "
                    "its guard does not guard"
                )

    def verify_large(self, workload: Workload, client: Client) -> None:
        """Raises when the large file, or a range of a large one, is not what lies on the disk."""
        whole = client.get(workload.large.path, workload.token)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("GET", whole.target, headers=dict(whole.headers))
            answer, digest = connection.getresponse(), sha256()
            while piece := answer.read(1 << 20):
                digest.update(piece)
        finally:
            connection.close()
        if (answer.status, digest.hexdigest()) != (http.client.OK, workload.large.sha256):
            raise RuntimeError(
                f"{self.title} answers {answer.status} to {whole.target}, or not with the file"
            )
        asks = [workload.ranges()[-1], *([workload.part_ranges()[-1]] if workload.part_links else [])]
        for ask in asks:
            self._verify_range(ask.item, ask.target, ask.first, ask.length, dict(ask.headers))

    def _verify_range(
        self, item: Item, target: str, first: int, length: int, headers: dict[str, str]
    ) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        with item.blob.open("rb") as file:
            file.seek(first)
            wanted = file.read(length)
        if (answer.status, body) != (http.client.PARTIAL_CONTENT, wanted):
            raise RuntimeError(f"{self.title} answers {answer.status} to a range of {target}, or wrong bytes")


def _answer(connection: http.client.HTTPConnection, request: Request) -> Answer:
    connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
    for name, value in request.headers:
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return Answer(answer.status, tuple(answer.getheaders()), answer.read())
