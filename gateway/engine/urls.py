"""Parse URLs strictly: a URL that two parsers could read differently is refused.

Guards are bypassed where two parsers split a URL differently: at a backslash, a second `@`, a host written as
a number, an escape in the host. So this is RFC 3986 without its optional freedoms, and every URL that an
answer of ours depends on is parsed here, those of the settings too.

* `http` or `https`, then `//`, then a host; no userinfo, no fragment.
* A host is dotted ASCII labels, four plain decimal numbers, or an IPv6 address in brackets. No trailing dot,
  no escape, no zone. A name that ends in a number is an address to some parsers (`2130706433`, `0x7f.1`,
  `127.1`), so it must be one in the plain form. Names are lower-cased, IPv6 is normalised.
* A port, if there is a colon, is 1 to 65535 without leading zeros.
* Path and query stay as they are written: nothing is decoded. Escapes are complete and none is of a control
  character. A path has no dot segment, in no spelling, since HTTP clients resolve them, has no backslash, and
  does not begin with `//`.

Not done here: whether a URL may be requested, and what a host name resolves to.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

from gateway.model.errors import BadNameError
from gateway.model.escapes import verify_escapes
from gateway.model.hidden_fields import shown

MAX_URL_CHARACTERS = 8192  # the longest request target that we take ourselves

_PARTS = re.compile(
    r"(https?)://([A-Za-z0-9._:\[\]-]+)"  # scheme and authority: no `@`, so no userinfo
    r"(/[A-Za-z0-9._~!$&'()*+,;=:@/%-]*)?"
    r"(?:\?([A-Za-z0-9._~!$&'()*+,;=:@/?%-]*))?",
    re.IGNORECASE | re.ASCII,
)
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]+)(?::(.*))?", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?=/|;|$)", re.IGNORECASE)
_ESCAPED_CONTROL = re.compile(r"%(?:[01][0-9a-f]|7f)", re.IGNORECASE)
_ESCAPED_BACKSLASH = re.compile(r"%5c", re.IGNORECASE)

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535
_MAX_HOST_CHARACTERS = 253


class Url(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A parsed URL. Path and query may hold a signature: they are not printed (I8)."""

    scheme: str
    host: str  # IPv6 with its brackets
    port: int
    path: str  # as written; empty when there is none
    query: str | None  # as written; None when there is no `?`

    def __repr__(self) -> str:
        return shown(self, hidden=("path", "query"))

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what an allow list compares."""
        return self.scheme, self.host, self.port

    @property
    def target(self) -> str:
        """The target of a request line."""
        return (self.path or "/") + ("" if self.query is None else f"?{self.query}")

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host's address; None for a name. An IPv4-mapped IPv6 address is returned as IPv4."""
        try:
            address = ipaddress.ip_address(self.host.strip("[]"))
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            return address.ipv4_mapped
        return address

    def text(self) -> str:
        """The one spelling that we write. `parse_url` parses it back to the same value."""
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        query = "" if self.query is None else f"?{self.query}"
        return f"{self.scheme}://{self.host}{port}{self.path}{query}"


def parse_url(text: str) -> Url:
    """Parse a URL. Raises `BadNameError`, which never repeats the text."""
    if len(text) > MAX_URL_CHARACTERS:
        raise BadNameError(f"a URL is at most {MAX_URL_CHARACTERS} characters long")
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise BadNameError("not a plain http or https URL")
    scheme, authority, path, query = parts[1].lower(), parts[2].lower(), parts[3] or "", parts[4]
    host, port = _parse_authority(authority, _DEFAULT_PORTS[scheme])
    _verify_path(path)
    for part in (path, query or ""):
        verify_escapes(part.encode("ascii"))
        if _ESCAPED_CONTROL.search(part):
            raise BadNameError("a URL holds no control character, escaped or not")
    return Url(scheme=scheme, host=host, port=port, path=path, query=query)


def _parse_authority(authority: str, default_port: int) -> tuple[str, int]:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise BadNameError("a URL names a host, and a port after one colon if any")
    host = _parse_host(match[1])
    if match[2] is None:
        return host, default_port
    if not _PORT.fullmatch(match[2]) or int(match[2]) > _MAX_PORT:
        raise BadNameError("a port is a number from 1 to 65535 without leading zeros")
    return host, int(match[2])


def _parse_host(host: str) -> str:
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError as error:
            raise BadNameError("not an IPv6 address in brackets") from error
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as error:
            raise BadNameError("a host that ends in a number is four decimal numbers") from error
    if len(host) > _MAX_HOST_CHARACTERS or not all(map(_LABEL.fullmatch, labels)):
        raise BadNameError("not a host name: dotted ASCII labels, no trailing dot")
    return host


def _verify_path(path: str) -> None:
    if path.startswith("//") or _DOT_SEGMENT.search(path) or _ESCAPED_BACKSLASH.search(path):
        raise BadNameError("a path holds no dot segment and no backslash and does not begin with //")
