"""What of an inference server's answer reaches a tenant, and the answers that are made here in its place.

The server answers everybody alike: its headers tell how long a model took to load and what was loaded
besides, its errors quote keys, ids and paths, its lists name the models of all tenants. So headers pass by
a list, errors become problem documents of ours, and lists are made anew of what the caller may infer.

Nothing here sends or reads anything: bodies are handed in whole. Non-goal: the answer of a prediction,
which is streamed as it comes.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from gateway import __version__
from gateway.front_door.message_words import plain_message
from gateway.model.answers import Answer
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.header_block import Headers
from gateway.model.names import ModelId, parse_model_id
from gateway.problems import (
    INFERENCE_FAILED,
    INFERENCE_LATER,
    INFERENCE_NO_ACCESS,
    INFERENCE_PROBLEMS,
    UNRECORDED,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

    from gateway.front_door.values import InferenceRequest

MAX_ERROR_BYTES = 64 * 1024
"""Of an error's body, of which the message is read: of a larger one nothing is."""

MAX_LIST_BYTES = 1024 * 1024
"""Of one server's list: eight models are about 3 kB."""

MAX_LISTED_MODELS = 1000
"""Of all servers together. Each is decided on its own."""

SERVER_NAME = "Cachegate"
SERVER_UUID = "6f6f2c0a-3f6c-4d57-9d0b-5a3a9b2c7e11"
"""One for all gateways: the SDK wants one, and one for each would tell how many there are."""

_PASSED = frozenset(
    {b"content-type", b"content-length", b"content-encoding", b"content-language", b"x-model-id"}
)
_CONTENT_TYPES = frozenset(
    {
        *(b"application/json", b"application/octet-stream", b"application/x-ndjson"),
        *(b"image/jpeg", b"image/png", b"image/webp", b"image/gif", b"image/bmp", b"image/tiff"),
        *(b"text/plain", b"text/event-stream"),
    }
)
_UNKNOWN_CONTENT = b"application/octet-stream"
_OURS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]{0,8192}")


def pass_headers(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers of a server's answer that reach the client, each once, and those of all our answers.

    A content type that a browser might run as a document is replaced: the gateway's origin is not the
    server's.
    """
    passed: dict[bytes, bytes] = {}
    for written, raw in pairs:
        name, value = written.lower(), raw.strip(b" \t")
        if name not in _PASSED or name in passed or not _VALUE.fullmatch(value):
            continue
        if name == b"content-length" and not value.isdigit():
            continue
        if name == b"content-type" and value.partition(b";")[0].strip().lower() not in _CONTENT_TYPES:
            value = _UNKNOWN_CONTENT
        passed[name] = value
    return Headers.of(*passed.items(), *_OURS)


def is_json(headers: Headers) -> bool:
    """Whether an answer is JSON, as it can be read. Raises `Refusal` for one that is encoded in another way.

    The server is asked for none; a proxy before it might compress all the same.
    """
    values = dict(headers.pairs)
    kind, _, more = values.get(b"content-type", b"").lower().partition(b";")
    if values.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refusal(Reason.INFERENCE_UNAVAILABLE)
    if kind.strip() != b"application/json":
        return False
    if more.strip() not in {b"", b"charset=utf-8"}:
        raise Refusal(Reason.INFERENCE_UNAVAILABLE)
    return True


def verify_reported(values: Sequence[bytes], inquiry: InferenceRequest) -> None:
    """Raise `Refusal(UNEXPECTED_MODEL)` if the server says that it used a model that was not authorised.

    `values` are all values of `X-Model-Id`; one names several models, joined by commas.
    """
    for value in values:
        for model in value.decode("latin-1").split(","):
            if model.strip(" \t") and model.strip(" \t") not in inquiry.reported:
                raise Refusal(Reason.UNEXPECTED_MODEL)


# Errors


def error_answer(
    status: int, body: bytes, inquiry: InferenceRequest, hidden: Collection[str], *, record: str = UNRECORDED
) -> Answer:
    """Our problem document for an answer of 400 and above. `hidden` are keys and secrets of this request.

    A client's mistake keeps its status; what it did not cause is 502 or 503. The server's message is added
    where nothing but harmless words is left of it; where a secret is near, it is dropped.
    """
    problem = INFERENCE_PROBLEMS.get(status, INFERENCE_FAILED)
    # Where the cause is the key or the server itself, its words are for the operator.
    is_for_client = problem not in (INFERENCE_NO_ACCESS, INFERENCE_LATER)
    message = _message(body, inquiry, hidden) if is_for_client else None
    return (
        problem.answer(record)
        if message is None
        else problem.answer_with_detail(f"It says: {message}", record)
    )


def _message(body: bytes, inquiry: InferenceRequest, hidden: Collection[str]) -> str | None:
    """The server's message in harmless words; None for one that cannot be had so."""
    if len(body) > MAX_ERROR_BYTES:
        return None
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    text = _text_of(document)
    if text is None or _is_near(hidden, text):
        return None
    names = {str(model) for model in inquiry.models[:1]}
    fields = set(inquiry.document) if isinstance(inquiry.document, dict) else set()
    message = plain_message(text, names=names, fields=fields)
    return None if message is None or _is_near(hidden, message) else message


def _text_of(document: Any) -> str | None:
    """The text of an error: of its `message` or `detail`; of a validation error, places and messages."""
    if not isinstance(document, dict):
        return None
    for name in ("message", "detail"):
        found = document.get(name)
        if isinstance(found, str):
            return found
        if isinstance(found, list) and found and isinstance(found[0], dict):
            return _first_mistake(found[0])
    return None


def _first_mistake(mistake: dict[str, Any]) -> str | None:
    """What a validation error says of its first mistake, without the input, which it repeats."""
    place, text = mistake.get("loc"), mistake.get("msg")
    if not isinstance(text, str):
        return None
    where = [step for step in place if isinstance(step, str)] if isinstance(place, list) else []
    return f"{' '.join(where)}: {text}" if where else text


def _is_near(hidden: Collection[str], text: str) -> bool:
    """Whether a secret stands in the text, in any case and with anything but letters and digits between."""
    bare = _bare(text)
    return any(_bare(secret) in bare or secret.casefold() in text.casefold() for secret in hidden if secret)


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()


# Lists of models


class _Listed(msgspec.Struct, frozen=True):
    """An entry of a server's list: what is read of it."""

    model_id: str
    task_type: str | None = None
    batch_size: int | None = None
    input_height: int | None = None
    input_width: int | None = None


class _List(msgspec.Struct, frozen=True):
    models: list[_Listed]


_lists = msgspec.json.Decoder(_List)


async def keep_models(bodies: Sequence[bytes], may_infer: Callable[[ModelId], Awaitable[bool]]) -> Answer:
    """The list of models that the caller may infer, of the lists of all its servers.

    Members about other callers are empty: who asked for a model by which path and name, and its memory.
    Raises `Refusal(INFERENCE_UNAVAILABLE)` for a list that does not parse.
    """
    kept: dict[ModelId, _Listed] = {}
    seen: set[str] = set()
    for body in bodies:
        for listed in _read_list(body):
            if listed.model_id in seen:
                continue
            seen.add(listed.model_id)
            if len(seen) > MAX_LISTED_MODELS:
                raise Refusal(Reason.INFERENCE_UNAVAILABLE)
            try:
                model = parse_model_id(listed.model_id)
            except BadNameError:
                continue
            if await may_infer(model):
                kept[model] = listed
    entries = [
        {
            **msgspec.to_builtins(kept[model]),
            "vram_bytes": None,
            "request_aliases": [],
            "request_paths": [],
        }
        for model in sorted(kept)
    ]
    return _answer(msgspec.json.encode({"models": entries} | _BLANK_TOTALS))


_BLANK_TOTALS = dict.fromkeys(
    (
        *("total_vram_bytes", "gpu_memory_used", "gpu_memory_total", "torch_cuda_allocated"),
        *("torch_cuda_reserved", "torch_cuda_allocator_cache", "non_torch_gpu_memory"),
    )
)


def _read_list(body: bytes) -> list[_Listed]:
    if len(body) > MAX_LIST_BYTES:
        raise Refusal(Reason.INFERENCE_UNAVAILABLE)
    try:
        return _lists.decode(body).models
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(Reason.INFERENCE_UNAVAILABLE) from error


# Answers of ours


def json_answer(body: bytes) -> Answer:
    """An answer of a server that was read whole."""
    return _answer(body)


def info_answer() -> Answer:
    """What the SDK asks for before anything else. It tells of no server behind the gateway."""
    return _answer(msgspec.json.encode({"name": SERVER_NAME, "version": __version__, "uuid": SERVER_UUID}))


def health_answer(path: str, *, is_ready: bool = True) -> Answer:
    """The answer to `/healthz` and `/readiness`, of the gateway itself."""
    if not is_ready:
        return _answer(
            b'{"status":"not ready"}', status=HTTPStatus.SERVICE_UNAVAILABLE, more=INFERENCE_LATER.headers
        )
    return _answer(b'{"status":"ready"}' if path.endswith("readiness") else b'{"status":"healthy"}')


def name_image(body: bytes, name: str) -> bytes:
    """The answer of an embedding, with this name for its image in place of the server's own.

    Raises `Refusal(INFERENCE_UNAVAILABLE)` for an answer that is no JSON object: the server's own name in
    it could not be taken out.
    """
    if len(body) > MAX_LIST_BYTES:
        raise Refusal(Reason.INFERENCE_UNAVAILABLE)
    try:
        document = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(Reason.INFERENCE_UNAVAILABLE) from error
    if "image_id" in document:
        document["image_id"] = name
    return msgspec.json.encode(document)


def _answer(
    body: bytes, status: HTTPStatus = HTTPStatus.OK, more: tuple[tuple[bytes, bytes], ...] = ()
) -> Answer:
    described = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
    return Answer(int(status), Headers.of(*described, *_OURS, *more), body)
