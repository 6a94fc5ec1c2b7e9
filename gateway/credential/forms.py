"""Read the form of a request: `application/x-www-form-urlencoded`, in one reading only. Syntax only.

    grant_type=client_credentials&scope=read

Servers and proxies disagree about forms, so what they disagree about is refused: a parameter that comes
twice, another content type, a coding, an escape that is none, text that is not UTF-8, control characters. A
parameter without a value counts as absent (RFC 6749, 3.2). Parameters that nobody reads are ignored (the
same).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from gateway.model.errors import Reason, Refusal

if TYPE_CHECKING:
    from gateway.model.access import WireRequest

MAX_FORM_BYTES = 16 * 1024  # two credentials of the largest size, percent-encoded, fit
MAX_FIELDS = 32

_TYPE = re.compile(rb"application/x-www-form-urlencoded(?:[ \t]*;[ \t]*charset=\"?utf-8\"?)?", re.IGNORECASE)
_PLAIN = rb"[^%\x00-\x1f\x7f-\xff]*+"
_VALUE = re.compile(rb"%b(?:%%[0-9A-Fa-f]{2}%b)*+" % (_PLAIN, _PLAIN))
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def parse_form(request: WireRequest) -> dict[str, str]:
    """The parameters of a form that have a value. Raises `Refusal(MALFORMED_BODY)`."""
    types = [value for name, value in request.headers if name == b"content-type"]
    if len(types) != 1 or not _TYPE.fullmatch(types[0].strip(b" \t")):
        raise Refusal(Reason.MALFORMED_BODY)
    if request.header(b"content-encoding") is not None:
        raise Refusal(Reason.MALFORMED_BODY)
    fields = request.form.split(b"&", MAX_FIELDS) if request.form else []
    if len(fields) > MAX_FIELDS:
        raise Refusal(Reason.MALFORMED_BODY)
    form: dict[str, str] = {}
    for field in fields:
        raw_name, _, raw_value = field.partition(b"=")
        name = decode_field(raw_name)
        if not name or name in form:
            raise Refusal(Reason.MALFORMED_BODY)
        form[name] = decode_field(raw_value)
    return {name: value for name, value in form.items() if value}


def decode_field(raw: bytes) -> str:
    """The text of a name or a value. Raises `Refusal(MALFORMED_BODY)`."""
    if not _VALUE.fullmatch(raw):
        raise Refusal(Reason.MALFORMED_BODY)
    plain = raw.replace(b"+", b" ")
    if b"%" not in plain:
        return plain.decode()  # ASCII without control characters, as was checked
    try:
        text = unquote_to_bytes(plain).decode()
    except UnicodeDecodeError:
        raise Refusal(Reason.MALFORMED_BODY) from None
    if _CONTROL.search(text):
        raise Refusal(Reason.MALFORMED_BODY)
    return text
