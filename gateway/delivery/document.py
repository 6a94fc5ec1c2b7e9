"""Answers with a JSON document: listings, descriptions, and the engine's metadata."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.delivery.headers import UNSTORED, content_headers
from gateway.model.answers import Answer
from gateway.model.header_block import Headers

_ENCODER = msgspec.json.Encoder()


def answer_document(document: Any, *, next_page: str | None = None) -> Answer:
    """The answer with this document; `next_page` is the link to the next page, if there is one."""
    more = () if next_page is None else ((b"link", f'<{next_page}>; rel="next"'.encode()),)
    return answer_json(_ENCODER.encode(document) + b"\n", *more)


def answer_json(body: bytes, *more: tuple[bytes, bytes]) -> Answer:
    """The answer with JSON that is already encoded. `more` are headers that only this answer has."""
    described = content_headers(b"application/json", len(body))
    return Answer(200, Headers.of(*described, *UNSTORED, *more), body)
