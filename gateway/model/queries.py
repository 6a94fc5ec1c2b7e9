"""Split a query into its fields, after checking their number.

All modules that read a query take its fields from `split_query`, so none does work for more fields than are
allowed. `;` counts as a separator beside `&`, since some servers behind a proxy still treat it so, and
`extract` searches for keys behind both.

Non-goals: what a field means, and how it is decoded.
"""

from __future__ import annotations

from gateway.model.errors import Reason, Refusal
from gateway.model.limits import MAX_QUERY_FIELDS


def has_too_many_fields(query: bytes) -> bool:
    """Whether a query has too many fields. Empty ones count, because each costs as much."""
    return query.count(b"&") + query.count(b";") >= MAX_QUERY_FIELDS


def split_query(query: bytes) -> list[bytes]:
    """The fields between the `&`, as written. Raises `Refusal(MALFORMED_QUERY)` for too many."""
    if has_too_many_fields(query):
        raise Refusal(Reason.MALFORMED_QUERY)
    return query.split(b"&")
