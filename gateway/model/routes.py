"""What a route declares to the guard before it can exist (I4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from gateway.model.access import Action, Credential, Principal, Resource, SignedLink, WireRequest
    from gateway.model.answers import Answer
    from gateway.model.errors import Reason
    from gateway.model.names import ModelId
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Admission, Allowed, Found, Receipt, ServerOutcome

    Receive = Callable[[], Awaitable[Any]]


class RecordedReadings(Protocol):
    """Remembers for a while what was recorded, where one record stands for several requests."""

    def recall(self, admission: Admission) -> Receipt | None:
        """The receipt of what a record stands for already; None for what has to be recorded."""

    def note(self, receipt: Receipt) -> None:
        """Remember what is recorded now."""


class GuardedRoute(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a route declares to the guard: its shape, its methods, the action, and where its resource is.

    `matches` tests the shape of the raw path alone and never raises; `locate` parses it and raises
    `Refusal`. `find` searches for the resource itself once it is allowed, and never before; `find_now` is the
    same from memory alone, and returns None where it would have to wait: its last argument is what was seen
    on disk in this event loop iteration (`resource/disk_checks.py`). A route that
    wraps requests for others has `unwrap`, which returns the wrapped request and its route, and raises
    `Refusal`: the guard then uses these two, and nothing else of this route. A route without such a
    declaration does not start (I4).

    `answer` makes the answer of an admitted request, as a value, or an awaitable of it where something has to
    be fetched. Routes of an app of somebody else's have none: that app sends what it likes.
    `body_bytes` bounds the body. With `reads_body` it is read before the decision, because it names what is
    asked for, once the key in the header is not refused; else an app reads it by itself.

    A route with `form_bytes` reads a body of at most so many bytes, before the caller is known: it may
    contain the credential.
    `beside` makes headers that all answers of the route have, refusals included. `decline` makes the answer
    to a refusal, by reason and record, where the route speaks a protocol that has its own. A route whose
    callers read statuses in a way of their own has `answer_refusal`, which puts a refusal into their form.

    With `readings` not every allowed request has a record of its own: one that is in the log already may
    stand for it. It is for reading the log itself, and for nothing else.
    """

    template: str
    methods: tuple[str, ...]
    action: Action
    matches: Callable[[bytes], bool]
    locate: Callable[[WireRequest], Resource]
    extract: Callable[[WireRequest], Credential | SignedLink] | None = None  # None: a key in a header
    find: Callable[[WireRequest, Allowed], Awaitable[tuple[Found, Stamp]]] | None = None  # None: in the cache
    find_now: Callable[[WireRequest, Allowed, Any], tuple[Found, Stamp] | None] | None = None
    unwrap: Callable[[WireRequest], tuple[WireRequest, GuardedRoute]] | None = None
    wrapped_methods: tuple[str, ...] = ()  # that a refused method is told of, where they are not `methods`
    sends_content: bool = True  # False: an answer to GET has no content of the file either
    answer: Callable[[Receipt], Answer | Awaitable[Answer]] | None = None
    body_bytes: int = 0
    reads_body: bool = False
    form_bytes: int = 0
    beside: Callable[[WireRequest], Iterable[tuple[bytes, bytes]]] | None = None
    decline: Callable[[Reason, str, WireRequest], Answer] | None = None
    answer_refusal: Callable[[Answer], Answer] | None = None
    readings: RecordedReadings | None = None
    has_key_in_head: bool = False  # its body holds no key, and is not read for a caller without a valid one


class PublicRoute(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a route declares that tells everybody the same, with or without a key.

    `answer` is given nothing of the request and no Receipt, so nothing of the cache can leave through it.
    It raises `Unavailable` where it is not known yet what to tell.
    """

    template: str
    methods: tuple[str, ...]
    matches: Callable[[bytes], bool]
    answer: Callable[[], Answer]


class HookRoute(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a route declares whose callers have no key: the proof is in the body, and `take` verifies it.

    `take` raises `Refusal`, or does what the body asks and returns the answer. It is given no Receipt, so
    nothing of the cache can leave through it.
    """

    template: str
    methods: tuple[str, ...]
    max_body_bytes: int
    matches: Callable[[bytes], bool]
    take: Callable[[WireRequest, bytes], Awaitable[bytes]]


class Needed(msgspec.Struct, frozen=True, kw_only=True):
    """What a forwarded request needs besides naming models: found out once its caller is known.

    `told` says, for an action of the tenant, what of the request needs it.
    """

    models: tuple[ModelId, ...]
    projects: tuple[ModelId, ...] = ()  # decided as models are; loading them is not asked about
    actions: tuple[Action, ...] = ()  # on the caller's own tenant
    client_detail: dict[Action, str] = {}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a forwarded request asks for: to infer all of these models, with one credential.

    Without a model it only needs a valid key: a list that is then cut to what the key may infer.
    """

    credential: Credential
    models: tuple[ModelId, ...]
    find_dependencies: Callable[
        [Principal, ModelId], Awaitable[Sequence[ModelId]]
    ]  # what loading it loads besides
    answer: Callable[[Receipt], Awaitable[Answer]]
    find_needed: Callable[[Principal], Awaitable[Needed]] | None = None  # instead of `models`


class Forwarding(Protocol):
    """One request on its way to an inference server, from its head to the end of its answer."""

    template: str  # of the server's route, for records and metrics; never the client's text
    reads_whole_body: bool  # before anything is decided; else the body is streamed, or there is none

    def own_answer(self) -> Answer | None:
        """The answer of the gateway itself to a request that needs no key; None for all others."""

    def key_in_head(self) -> Credential | None:
        """The key in the head of the request, if there is one. Raises `Refusal` as `ask` does."""

    def ask(self, body: bytes | None) -> Asked:
        """What the request asks for. Raises `Refusal`."""

    @property
    def upstream(self) -> ServerOutcome | None:
        """What the inference server did with it so far, for the record of the outcome."""

    @property
    def stamp(self) -> Stamp | None:
        """Of facts that the answer depends on beside those of the receipts."""

    async def close(self) -> None:
        """Close the connection to the server, if the answer was not read to its end."""


class ForwardedRoute(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What the front door declares: all paths below its mount, which an inference server answers.

    `begin` finds the server's route, from the head of the request alone, and raises `Refusal`. Its body is
    read only then. The guard authenticates once and decides about every model that the request asks for; all
    of it is recorded before anything is sent to the server.
    """

    template: str
    methods: tuple[str, ...]
    max_body_bytes: int
    matches: Callable[[bytes], bool]
    allowed: Callable[[bytes], Iterable[str]]  # of the raw path: the methods that its routes have
    begin: Callable[[WireRequest, Receive], Forwarding]
    beside: Callable[[WireRequest], Iterable[tuple[bytes, bytes]]]  # headers that all its answers have
    answer: Callable[[Receipt], Awaitable[Answer]]
