"""The canonical form of a record, made from its values: what its hash covers, whoever has printed it since.

Names sorted by their bytes, no blanks, UTF-8 without escapes but those that JSON demands, and only values
that have one text: strings, integers below 2^53 in magnitude, true, false, objects and lists. There is no
null: what is absent is left out. A record that `jq -S` or a SIEM has read and printed has the same form.

What could be read in two ways is refused: a name that comes twice, a float, an integer that a double cannot
hold, text that is not Unicode.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from typing import Final

MAX_INTEGER: Final = (1 << 53) - 1
"""The largest integer that every JSON reader keeps: doubles hold it exactly."""
MAX_DEPTH: Final = 8  # a record has three levels
MAX_DOCUMENT_BYTES: Final = 4 << 20  # a record has at most one mebibyte, and so has a head


def parse_document(raw: bytes) -> dict[str, Any]:
    """Parse JSON that has a canonical form to an object. Raises `ValueError` that says why it has none."""
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"it is longer than {MAX_DOCUMENT_BYTES} bytes")
    try:
        document = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_float=_refuse_float,
            parse_constant=_refuse_float,
            parse_int=_integer,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg}") from None
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 -- the text is at fault
    _verify_depth(document)
    return document


def canonical_form(values: dict[str, Any]) -> bytes:
    """The canonical form of what `parse_document` returned. Raises `ValueError`."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("it has half of a surrogate pair, which is no Unicode text") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("it has the same name twice in one object")
    for name, value in pairs:
        if value is None:
            raise ValueError(f"{name!r} is null: what is absent is left out")
    return values


def _integer(text: str) -> int:
    if len(text) > len(str(-MAX_INTEGER)) or abs(int(text)) > MAX_INTEGER or text == "-0":
        raise ValueError("it has an integer that not every JSON reader keeps")
    return int(text)


def _refuse_float(text: str) -> NoReturn:
    raise ValueError(f"it has the number {text[:20]}, which is not an integer")


def _verify_depth(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError("it is nested too deeply")
