"""An operation: one row of a table, from which its route and its part of the OpenAPI document are made.

Nothing about an operation is written anywhere else: what it reads and answers are the Structs that its
handler is given and returns, and its refusals follow from what it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.admin.documents import Changed, NoQuery
from gateway.model.access import ADMINISTRATIVE_CHANGES
from gateway.model.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.admin.call import Call, Reply
    from gateway.model.access import Action

BODY_BYTES = 64 * 1024
POLICY_BYTES = 1024 * 1024  # the rules are one document, and so is a policy folder


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation. Its id is its action; `path` is below the API's own and has at most one `{id}`."""

    action: Action
    method: str
    path: str
    summary: str
    handle: Callable[[Call], Awaitable[Reply]]
    reply: Any = Changed
    parse_id: Callable[[str], str] | None = None  # of `{id}`; raises `BadNameError`
    query: type[msgspec.Struct] = NoQuery
    body: type[msgspec.Struct] | None = None
    body_bytes: int = BODY_BYTES
    is_body_optional: bool = False
    holds_found_tokens: bool = False  # in its body's `tokens` or `token`: keys that were found somewhere
    is_safe_to_repeat: bool = False  # by itself, so that it takes no Idempotency-Key
    creates: bool = False  # answers 201 with the place of what it made
    has_etag: bool = False  # is about one record, whose generation is its ETag
    needs_match: bool = False  # is refused without If-Match
    more_refusals: tuple[Reason, ...] = ()

    @property
    def is_change(self) -> bool:
        """Whether it changes facts or rules."""
        return self.action in ADMINISTRATIVE_CHANGES

    @property
    def takes_idempotency_key(self) -> bool:
        """Whether a request can be sent again with the same Idempotency-Key."""
        return self.is_change and not self.is_safe_to_repeat

    @property
    def statuses(self) -> tuple[int, ...]:
        """The statuses with which it is done, or begun."""
        if not self.is_change:
            return (200,)
        return (201, 202, 200) if self.creates else (200, 202)

    @property
    def refusals(self) -> tuple[Reason, ...]:
        """The reasons for which it may be refused, one for each kind of problem."""
        found = [
            *(Reason.MALFORMED_QUERY, Reason.NO_CREDENTIAL, Reason.MISSING_ACTION, Reason.METHOD_NOT_ALLOWED),
            *(Reason.PATH_TOO_LONG, Reason.HEADERS_TOO_LARGE, Reason.BODY_TOO_LARGE, Reason.SLOW_REQUEST),
            *(Reason.NO_FACTS, Reason.INTERNAL),
        ]
        if self.parse_id is not None:
            found += [Reason.ABSENT]
        if self.body_bytes > BODY_BYTES:
            found += [Reason.BUSY]
        if self.body is not None:
            found += [Reason.MALFORMED_BODY, Reason.IMPOSSIBLE_VALUE]
        if self.is_change:
            found += [Reason.CONFLICT]
        if self.takes_idempotency_key:
            found += [Reason.REUSED_IDEMPOTENCY_KEY, Reason.TOO_MANY_IDEMPOTENCY_KEYS]
        if self.has_etag:
            found += [Reason.PRECONDITION_FAILED]
        if self.is_change and not (self.has_etag and self.takes_idempotency_key):
            found += [Reason.MALFORMED_REQUEST]
        if self.needs_match:
            found += [Reason.PRECONDITION_REQUIRED]
        return (*found, *self.more_refusals)
