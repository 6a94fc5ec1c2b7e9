"""Hosts whose images the gateway fetches for a tenant, as they are written: `images.example.com`.

A host stands for https at one port. `http://images.example.com` stands for http there, and nothing else
does: a list that names a host without a scheme never sends a request in plain text. There are no
wildcards: the owner of a name below a listed one would be anybody.
"""

from __future__ import annotations

import re

from gateway.model.errors import BadNameError

MAX_IMAGE_HOSTS = 64
"""Of one tenant. They stand in the tenant's record, which every decision about one of its keys reads."""

MAX_HOST_CHARACTERS = 253  # of a name in the DNS

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?P<scheme>http://)?(?P<host>{_LABEL}(?:\.{_LABEL})*)(?::(?P<port>[1-9][0-9]{{0,4}}))?")
_DEFAULT_PORTS = {"https": 443, "http": 80}
_MAX_PORT = 65535


def parse_image_host(text: str) -> str:
    """A host in its one spelling: lower-case ASCII, with `http://` only for plain http, no default port."""
    found = _HOST.fullmatch(text)
    if found is None or len(found["host"]) > MAX_HOST_CHARACTERS:
        raise BadNameError(
            f"{text[:MAX_HOST_CHARACTERS]!r} is not a host of images: expected a name such as "
            "images.example.com, in lower case, with a port if it is not 443; or http:// and such a name"
        )
    scheme, port = ("http" if found["scheme"] else "https"), int(found["port"] or 0)
    if port > _MAX_PORT or port == _DEFAULT_PORTS[scheme]:
        raise BadNameError(
            f"{text!r} is not a host of images: expected a port up to {_MAX_PORT}, and none where it is "
            "the scheme's own"
        )
    return text


def image_host(scheme: str, host: str, port: int | None) -> str:
    """The spelling of the host that a URL names."""
    is_default = port is None or port == _DEFAULT_PORTS.get(scheme)
    named = host.lower() if is_default else f"{host.lower()}:{port}"
    return named if scheme == "https" else f"{scheme}://{named}"
