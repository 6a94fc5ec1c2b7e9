"""Clean text written by a client for a record: bounded, printable and without secrets (I8).

A client can put a key anywhere: into a user agent, a method, a model's name. The credentials of the request
itself are removed from every field, in whatever form (`request_secrets.py`). As for other keys: text that
only describes the client (the user agent) loses everything that looks like a key; names that an auditor has
to match exactly lose only our own keys and access tokens, which have a recognisable form, and values
announced by a word such as `api_key=`.

Limit: a key of a foreign form inside a model's name, which is nowhere else in the request, cannot be told
from a name, and is not removed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from gateway.audit.request_secrets import REMOVED
from gateway.model.access import TOKEN_MARK

if TYPE_CHECKING:
    from gateway.audit.request_secrets import RequestSecrets

MAX_AGENT_CHARACTERS = 200  # enough for a browser's; every record stores it
_MAX_RAW_AGENT_BYTES = 1024  # that are examined; the rest is cut off first

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_OUR_KEY = re.compile(r"cg_[0-9A-Za-z_]*", re.IGNORECASE)
_OUR_TOKEN = re.compile(r"eyJ[0-9A-Za-z_-]+\.[0-9A-Za-z_-]+\.[0-9A-Za-z_-]+")
_WORD = re.compile(r"[0-9A-Za-z_.~+/=:%@-]+")
_UUID = r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}"
# Keys of platforms have 16 letters and digits or more; few words in honest user agents do.
_KEY_LIKE = re.compile(rf"cg_|[0-9A-Za-z]{{16}}|{_UUID}", re.IGNORECASE)
# A word that announces a secret, with the value after it, whatever that looks like.
_ANNOUNCED_WORDS = (
    r"\b(api[_-]?key|access[_-]?token|token|secret|password|bearer|basic|authorization|sig|signature)"
)
_ANNOUNCED = re.compile(_ANNOUNCED_WORDS + r"([=:]\s*|\s+)\S+", re.IGNORECASE)
_ANNOUNCED_IN_NAME = re.compile(_ANNOUNCED_WORDS + r"=[^/&;\s]+", re.IGNORECASE)
_RUN = re.compile(rb"[0-9A-Za-z_~+/%=-]+")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_ADDRESS = re.compile(r"[0-9A-Fa-f.:]{2,45}")


def clean_method(raw_method: str) -> str:
    """A standard HTTP method, or `OTHER`: a client may send any token as the method."""
    return raw_method if raw_method in _METHODS else "OTHER"


def clean_agent(raw_agent: bytes, secrets: RequestSecrets | None = None) -> str:
    """The user agent without the secrets of its request or anything that looks like a key."""
    if secrets is None or not secrets.may_be_in_runs(longest_run(raw_agent[:_MAX_RAW_AGENT_BYTES])):
        return _without_keys(raw_agent)
    text = raw_agent[:_MAX_RAW_AGENT_BYTES].decode("latin-1")
    if not secrets.is_in(text):
        return _without_keys(raw_agent)
    text = _without_keys(secrets.clean(text, separator=" ").encode("latin-1"))
    return REMOVED if secrets.is_in(text) else text


@lru_cache(maxsize=1024)
def longest_run(examined: bytes) -> int:
    """The length of the longest run of characters that plain keys consist of, percent-encoded or not.

    It is given no more than is examined: a client's header of 64 KiB must not be kept as a cache key.
    """
    return max(map(len, _RUN.findall(examined)), default=0)


def _without_keys(raw_agent: bytes) -> str:
    """A user agent without anything that looks like a key, printable and short.

    Keys are removed before the text is cut to length: cutting first could leave the beginning of a key that
    is then too short to be recognised.
    """
    # One byte more than is examined tells `_clean_agent` that text was cut; more is not kept in its cache.
    return _clean_agent(raw_agent[: _MAX_RAW_AGENT_BYTES + 1])


@lru_cache(maxsize=1024)
def _clean_agent(raw_agent: bytes) -> str:
    text = raw_agent[:_MAX_RAW_AGENT_BYTES].decode("latin-1")
    if len(raw_agent) > _MAX_RAW_AGENT_BYTES:
        text = text[: text.rfind(" ") + 1] + REMOVED
    text = _UNPRINTABLE.sub("?", text)
    text = _ANNOUNCED.sub(lambda match: match[1] + " " + REMOVED, text)
    text = _WORD.sub(lambda match: REMOVED if _KEY_LIKE.search(match[0]) else match[0], text)
    return text[:MAX_AGENT_CHARACTERS]


def clean_name(name: str, secrets: RequestSecrets | None = None) -> str:
    """A name without the secrets of its request, our own keys, tokens, and values announced as secrets."""
    if secrets is not None and len(name) >= secrets.least:
        name = secrets.clean(name, separator="/")
    if "g_" in name or "G_" in name:
        name = _OUR_KEY.sub(REMOVED, name)
    if TOKEN_MARK in name:
        name = _OUR_TOKEN.sub(REMOVED, name)
    return _ANNOUNCED_IN_NAME.sub(REMOVED, name) if "=" in name else name


def clean_digits(digits: str | None, secrets: RequestSecrets) -> str | None:
    """A value of a fixed form (a digest, a trace id), or None if it is a secret of its request."""
    return None if digits and secrets.is_part(digits) else digits


def clean_trace_id(raw_trace_id: str | None) -> str | None:
    """A W3C trace id, or None."""
    return raw_trace_id if raw_trace_id and _TRACE_ID.fullmatch(raw_trace_id) else None


def clean_client(client: str) -> str:
    """The client's address, or `unknown`: a unix socket has none."""
    return client if _ADDRESS.fullmatch(client) else "unknown"


@lru_cache(maxsize=4096)
def source_of(client: str) -> str:
    """The unit of rate limiting: an IPv4 address, or the /64 within which an IPv6 host chooses addresses."""
    try:
        address = ip_address(client)
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)
