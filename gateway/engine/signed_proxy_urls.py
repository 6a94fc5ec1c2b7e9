"""Links of ours in `/proxy?url=` form, with the signature beside the wrapped URL instead of in it.

    https://gw.example/proxy?url=https%3A%2F%2Fgw.example%2Fd%2Facme%2Fcars%2F1%2F-%2Fpkg%2Ff&se=1790000000&sig=...

The engine stores, for a file without a digest, the URL that it came from, and refuses the package for good
when a later answer has another URL. It ignores the parameters that it knows as a signature, `se` and `sig`
among them, but only where these are parameters of their own: inside a wrapped URL they count as part of the
name, and every new expiry would make another one. So a link is handed out wrapped already, with `se` and
`sig` outside, and what the engine stores never changes. It sends such a URL unchanged when it begins as its
own setting does. Otherwise it wraps it once more, which is understood here, but then an unhashed file loads
once only: the public URL has to be the one that clients set.

Non-goal: verifying the signature.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.engine.proxy_urls import PROXY_PATH, find_path_below, parse_proxied, wrap
from gateway.engine.urls import parse_url
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.escapes import decode_once
from gateway.model.limits import MAX_TARGET_BYTES

if TYPE_CHECKING:
    from gateway.engine.urls import Url

_SIGNED = re.compile(rb"(url=[^&;#]*)&(se=[0-9]{1,20}&sig=[A-Za-z0-9_.-]{1,256})")
_ONCE_MORE = re.compile(rb"url=([^&;#]*)")


def wrap_signed(gateway_url: str, link: str) -> str:
    """A link of ours (`<url>?se=...&sig=...`) in this form."""
    url, _, signature = link.partition("?")
    return f"{wrap(gateway_url, url)}&{signature}"


def parse_asked(raw_query: bytes, public_url: Url) -> Url:
    """The URL requested in a raw query, with a signature beside it moved into it. Raises `Refusal`."""
    if len(raw_query) > MAX_TARGET_BYTES:
        raise Refusal(Reason.PATH_TOO_LONG)
    signed = _SIGNED.fullmatch(raw_query) or _find_signed_inside(raw_query, public_url)
    if signed is None:
        return parse_proxied(raw_query, public_url)
    url = parse_proxied(signed[1], public_url)
    if find_path_below(url, public_url) is None or url.query is not None:
        raise Refusal(Reason.MALFORMED_QUERY)  # only our own links have their signature beside them
    return replace(url, query=signed[2].decode("ascii"))


def _find_signed_inside(raw_query: bytes, public_url: Url) -> re.Match[bytes] | None:
    """The match where the engine wrapped the link once more; None for everything else."""
    wrapped = _ONCE_MORE.fullmatch(raw_query)
    if wrapped is None:
        return None
    try:
        outer = parse_url(decode_once(wrapped[1]))
    except BadNameError:
        return None  # `parse_proxied` refuses it
    if find_path_below(outer, public_url) != PROXY_PATH:
        return None
    return _SIGNED.fullmatch((outer.query or "").encode("ascii"))
