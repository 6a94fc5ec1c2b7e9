"""Pages of lists: at most `limit` items after a place, and the place from which the list goes on.

Lists of one index are cut before anything is read. What lies in several places (the keys and grants of all
tenants) is walked tenant by tenant, a bounded number of them for each page: a page may then be short, or
empty, and still lead on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from gateway.directory.records import names
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.names import TenantId, parse_tenant_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.directory.reading.listing import Listing

T = TypeVar("T")

MAX_WALKED = 200
"""Tenants that one page looks at: each is a read of its own."""


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A page. `after` is where it goes on, as in the header Link; null: it is the last one."""

    items: list[T]
    after: str | None


PageOf = Callable[[TenantId | None, str | None, int], Awaitable[tuple[list[T], str | None]]]
"""A page of what an owner has (None: the operators), and the place from which it goes on, if it does."""

_BEYOND = "~"  # sorts behind every name of an item


async def walk(
    listing: Listing,
    page_of: PageOf[T],
    *,
    after: str | None,
    limit: int,
    only: TenantId | None = None,
    is_of_operators: bool = False,
    has_operators: bool = False,
    has_removed: bool = False,
) -> Page[T]:
    """A page of what all owners have: the operators, where they have any, then tenant by tenant.

    `has_removed`: tenants that were removed have some, too.

    `only` and `is_of_operators` name the one owner that is asked about. Raises `Refusal` for a place that no
    page gave.
    """
    owner, item = _place(after)
    is_more = False
    if only is not None or is_of_operators:
        owners: list[TenantId | None] = [only]
    else:
        owners = [None] if has_operators and not owner else []
        owners += [parse_tenant_id(owner)] if owner else []
        tenants, is_more = await listing.page_of(
            names.TENANTS, parse_tenant_id, after=owner or None, limit=MAX_WALKED
        )
        removed = await listing.list_removed_tenants() if has_removed else []
        among = {one for one in removed if one > owner and not (is_more and tenants and one > tenants[-1])}
        owners += sorted({*tenants, *among})
    items: list[T] = []
    for one in owners:
        start = item if item is not None and owner == (one or "") else None
        found, further = await page_of(one, start, limit - len(items))
        items += found
        if further is not None or len(items) == limit:
            return Page(items=items, after=f"{one or ''}:{_BEYOND if further is None else further}")
    return Page(items=items, after=f"{owners[-1] or ''}:{_BEYOND}" if is_more and owners else None)


def cut(found: Sequence[tuple[str, T]], after: str | None, limit: int) -> tuple[list[tuple[str, T]], bool]:
    """The page of a short list that is in order."""
    rest = [one for one in found if after is None or one[0] > after]
    return rest[:limit], len(rest) > limit


def _place(after: str | None) -> tuple[str, str | None]:
    """The owner and the item of a place; the owner is empty for the operators."""
    if after is None:
        return "", None
    owner, colon, item = after.partition(":")
    if not colon or not item.isascii():
        raise Refusal(Reason.MALFORMED_QUERY)
    if owner:
        try:
            parse_tenant_id(owner)
        except BadNameError as error:
            raise Refusal(Reason.MALFORMED_QUERY) from error
    return owner, item
