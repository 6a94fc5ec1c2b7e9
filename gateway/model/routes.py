"""What a route declares to the guard before it can exist (I4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.model.access import Action, Credential, Resource, SignedLink, WireRequest
    from gateway.model.answers import Answer
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Allowed, Found, Receipt


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
    answer: Callable[[Receipt], Answer | Awaitable[Answer]] | None = None


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
