"""Compare the ids of models in a prediction with those that were authorised, while it is passed on.

`X-Model-Id` names what a request asked the server for. The prediction itself also names the model that the
server ended with, as its provider called it when the model was loaded: in the member `model_id`, of
`resolved_model` and of what describes embeddings. Where the provider has since put another model behind a
name, that one is named there and nowhere else.

The prediction is not parsed: it may be large, and it streams. The bytes `"model_id"` with no backslash before
them are a whole text in any JSON document, since a quote within a text is escaped; what follows them is the
id, or something else that is left alone.

In what a workflow gives, members are called as its author calls them, and blocks repeat the ids that they
were given. There only the id in a `resolved_model` is the server's own word, which it writes without spaces.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from gateway.model.errors import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

MAX_ID_BYTES = 1024
"""Of an id with all that stands before it. A longer one is no id that was authorised."""

MEMBER = b'"model_id"'
MEMBER_IN_WORKFLOWS = b'"resolved_model":{"model_id"'
_ESCAPE = b"\\"
_ID = re.compile(rb'\s*+:\s*+("(?:[^"\\]|\\.)*+")', re.DOTALL)
_BEGUN = re.compile(rb'\s*+(?::\s*+(?:"(?:[^"\\]|\\.)*+\\?)?)?', re.DOTALL)  # what may go on to be an id


async def with_known_ids(
    pieces: AsyncIterator[bytes],
    known: Collection[str],
    on_other: Callable[[], None],
    member: bytes = MEMBER,
) -> AsyncIterator[bytes]:
    """The pieces of a JSON document, in which each id of a model that is not known is an empty text.

    `member` is what stands before an id. The length of the document stays the same. `on_other` is called for
    such an id before anything after it is passed on: it may raise. Raises `Refusal(INFERENCE_UNAVAILABLE)`
    for an id without an end.
    """
    held = b""
    async for piece in pieces:
        ready, held = _pass_on(held + piece, known, on_other, member)
        if ready:
            yield ready
    if held:
        yield held


def with_known_ids_in(
    text: bytes, known: Collection[str], on_other: Callable[[], None], member: bytes = MEMBER
) -> bytes:
    """The same for a document that is there as a whole."""
    if member not in text:
        return text
    ready, held = _pass_on(text, known, on_other, member)
    return ready + held


def _pass_on(
    text: bytes, known: Collection[str], on_other: Callable[[], None], member: bytes
) -> tuple[bytes, bytes]:
    """What of the text can be passed on, and what more has to be read after."""
    ready: list[bytes] = []
    start = 0  # of what is not passed on yet
    while (at := text.find(member, start)) >= 0:
        after = at + len(member)
        is_text = text[at - 1 : at] != _ESCAPE
        found = _ID.match(text, after) if is_text else None
        if found is None:
            if is_text and _BEGUN.fullmatch(text, after):
                if len(text) - at > MAX_ID_BYTES:
                    raise Refusal(Reason.INFERENCE_UNAVAILABLE)
                return b"".join((*ready, text[start:at])), text[at:]
            ready.append(text[start:after])
            start = after
            continue
        written = found[1]
        if not _is_known(written, known):
            on_other()
            written = b'""'.ljust(len(written))
        ready += (text[start : found.start(1)], written)
        start = found.end()
    end = max(start, len(text) - _length_of_begun(member, text))
    return b"".join((*ready, text[start:end])), text[end:]


def _is_known(written: bytes, known: Collection[str]) -> bool:
    try:
        named = msgspec.json.decode(written, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return not named or named in known


def _length_of_begun(member: bytes, text: bytes) -> int:
    """How many bytes at the end may be the beginning of the member, with the backslash that may be before."""
    begun = next((length for length in range(len(member) - 1, 0, -1) if text.endswith(member[:length])), 0)
    return begun + text.endswith(_ESCAPE, 0, len(text) - begun)
