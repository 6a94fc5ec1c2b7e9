"""The AuthZEN face: answers questions of others about access (OpenID Authorization API 1.0).

    POST     /access/v1/evaluation                one question: {"decision": true} or {"decision": false}
    POST     /access/v1/evaluations               up to 100, in order, with early ends
    GET/HEAD /.well-known/authzen-configuration   where these are, with an https public URL

The caller needs the scope `decisions:ask`. With a tenant's key it asks about its own tenant and its keys, and
any other is answered like one that does not exist. An admin key, which the operator gave to a server of its
own, asks about all.

A question delivers nothing. What was asked and answered is recorded before the answer leaves, each question
by itself and as a question (`audit/record.py`); and the last check covers everything that all answers stand
on, so that no yes leaves that has ended meanwhile.

The manners are those of the standard: a denial is 200 with `false`, without a reason; `X-Request-ID` comes
back. Search is not answered: it would list who may do what.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway.delivery.document import answer_document
from gateway.delivery.headers import content_headers
from gateway.faces.evaluation_bodies import MAX_BODY_BYTES, parse_evaluation, parse_evaluations
from gateway.faces.route import FaceRoute
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.answers import Answer
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.header_block import Headers
from gateway.model.questions import Answered, Evaluated
from gateway.model.routes import GuardedRoute, PublicRoute
from gateway.model.stamps import Stamp
from gateway.questions import ANSWER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.faces.evaluation_bodies import Asked
    from gateway.model.access import WireRequest
    from gateway.model.names import KeyId
    from gateway.model.verdicts import Allowed, Receipt
    from gateway.questions import Questions

EVALUATION_PATH = b"/access/v1/evaluation"
EVALUATIONS_PATH = b"/access/v1/evaluations"
METADATA_PATH = b"/.well-known/authzen-configuration"

PUBLIC_SECONDS = 60  # how long a cache may keep the metadata
MAX_UNDER_WAY = 400
"""Questions of one key that a worker answers at once: four full batches. Beyond it, the caller is to wait."""

REQUEST_ID = b"x-request-id"
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")  # visible ASCII: nothing that a header could be split by


class AuthzenFace:
    """The routes that answer questions about access."""

    def __init__(self, questions: Questions, count: Callable[[str], object]) -> None:
        """`count` is called with each answer, in one word."""
        self._questions = questions
        self._count = count
        self._under_way: Counter[KeyId] = Counter()

    async def evaluate(self, request: WireRequest, allowed: Allowed) -> tuple[Evaluated, Stamp]:
        """The answer to one question. Raises `Refusal`, and `Unavailable` where it is not decided."""
        return await self._evaluate(parse_evaluation(request), request, allowed)

    async def evaluate_all(self, request: WireRequest, allowed: Allowed) -> tuple[Evaluated, Stamp]:
        """The answers to a batch."""
        return await self._evaluate(parse_evaluations(request), request, allowed)

    async def _evaluate(
        self, asked: Asked, request: WireRequest, allowed: Allowed
    ) -> tuple[Evaluated, Stamp]:
        caller, now = allowed.access.principal, request.received_at
        answers: list[Answered] = []
        clock = asyncio.get_running_loop().time
        ends_at = clock() + ANSWER_SECONDS
        with self._counting(caller.key_id, len(asked.questions)):
            for question in asked.questions:
                left = max(0.0, ends_at - clock())
                answered = await self._questions.answer(question, caller, now, left)
                answers.append(answered)
                self._count(answered.answer)
                if asked.semantic.ends_with(is_yes=answered.is_yes):
                    break
        if not asked.is_batch and answers[0].is_undecided:
            raise Unavailable("questions", "it could not be decided", answers[0].reason)
        found = Evaluated(answers=tuple(answers), is_batch=asked.is_batch)
        return found, _together([allowed.stamp, *(one.stamp for one in answers if one.stamp is not None)])

    @contextmanager
    def _counting(self, key_id: KeyId, count: int) -> Iterator[None]:
        """Count the questions of a key that are under way. Raises `Refusal(BUSY)` for too many."""
        if self._under_way[key_id] + count > MAX_UNDER_WAY:
            raise Refusal(Reason.BUSY)
        self._under_way[key_id] += count
        try:
            yield
        finally:
            self._under_way[key_id] -= count
            if not self._under_way[key_id]:
                del self._under_way[key_id]


def answer_evaluated(receipt: Receipt) -> Answer:
    """The decisions, in the order of the questions."""
    found = receipt.admission.found
    if not isinstance(found, Evaluated):
        raise TypeError("this route answers questions")
    decisions = [_decision(one) for one in found.answers]
    return answer_document({"evaluations": decisions} if found.is_batch else decisions[0])


def _decision(answered: Answered) -> dict[str, Any]:
    """One decision. A no has no reason, so that hidden and absent are one; only what cannot be asked has."""
    if answered.question.error is not None:
        return _failed(400, answered.question.error)
    if answered.is_undecided:
        return _failed(503, "not decided; ask again")
    return {"decision": answered.is_yes}


def _failed(status: int, message: str) -> dict[str, Any]:
    return {"decision": False, "context": {"error": {"status": status, "message": message}}}


def _together(stamps: list[Stamp]) -> Stamp:
    """One stamp of all, each record in it once: many questions stand on the same."""
    leaves = {id(leaf): leaf for one in stamps for leaf in one.leaves}
    generations = [one.generation for one in stamps if one.leaves]
    return Stamp(min(generations, default=0), tuple(leaves.values()))


def request_id(request: WireRequest) -> tuple[tuple[bytes, bytes], ...]:
    """The caller's `X-Request-ID`, to be sent back; nothing for two of them, or one that is no plain id."""
    given = [value for name, value in request.headers if name == REQUEST_ID]
    return ((REQUEST_ID, given[0]),) if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) else ()


def _locate(_request: WireRequest) -> Resource:
    return Resource(kind=ResourceKind.SELF)


def routes(face: AuthzenFace) -> list[FaceRoute]:
    """The routes for callers with a key."""
    return [
        FaceRoute(
            GuardedRoute(
                template=path.decode(),
                methods=("POST",),
                action=Action.ASK,
                matches=path.__eq__,
                locate=_locate,
                find=find,
                answer=answer_evaluated,
                body_bytes=MAX_BODY_BYTES,
                reads_body=True,
                beside=request_id,
            )
        )
        for path, find in ((EVALUATION_PATH, face.evaluate), (EVALUATIONS_PATH, face.evaluate_all))
    ]


def public_routes(public_url: str | None) -> list[PublicRoute]:
    """The metadata document. The standard wants https, so without such a URL there is none."""
    if public_url is None or not public_url.startswith("https://"):
        return []
    base = public_url.rstrip("/")
    # Clients of a URL with a path put the name before that path (RFC 8615); a proxy may have removed it.
    places = frozenset({METADATA_PATH, METADATA_PATH + urlsplit(base).path.encode()})
    document = {
        "policy_decision_point": base,
        "access_evaluation_endpoint": base + EVALUATION_PATH.decode(),
        "access_evaluations_endpoint": base + EVALUATIONS_PATH.decode(),
    }
    return [
        PublicRoute(
            template=METADATA_PATH.decode(),
            methods=("GET", "HEAD"),
            matches=places.__contains__,
            answer=_answering(document),
        )
    ]


def _answering(document: dict[str, str]) -> Callable[[], Answer]:
    body = answer_document(document).body
    if not isinstance(body, bytes):
        raise TypeError("a document is in memory")
    headers = Headers.of(
        *content_headers(b"application/json", len(body)),
        (b"cache-control", b"public, max-age=%d" % PUBLIC_SECONDS),
        (b"x-content-type-options", b"nosniff"),
    )
    answer = Answer(200, headers, body)
    return lambda: answer
