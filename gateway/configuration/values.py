"""Parse settings, which are text in the environment and in the file alike; one function for each kind.

Every function raises `ValueError` that says what was expected. The caller adds which setting it was.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.engine.urls import parse_url
from gateway.model.check_prefixes import CheckPrefix
from gateway.model.durability import Durability
from gateway.model.errors import BadNameError
from gateway.model.inference import InferenceServer
from gateway.model.names import parse_tenant_id

if TYPE_CHECKING:
    from collections.abc import Callable


def read_path(text: str) -> Path:
    """A path, `~` expanded, absolute, links not resolved."""
    return Path(text).expanduser().absolute()


def read_text(text: str) -> str:
    """Any text but an empty one."""
    if not text.strip():
        raise ValueError("expected a value, found an empty one")
    return text


def read_number(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers within bounds."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return int(text)

    return read


def read_switch(text: str) -> bool:
    """`on` or `off`."""
    if text not in {"on", "off"}:
        raise ValueError("expected `on` or `off`")
    return text == "on"


def read_choice(*values: str) -> Callable[[str], str]:
    """A parser of one of these words."""

    def read(text: str) -> str:
        if text not in values:
            raise ValueError("expected " + " or ".join(f"`{value}`" for value in values))
        return text

    return read


def read_url(text: str) -> str:
    """An http or https URL without user, query or fragment; a slash at its end is removed."""
    try:
        url = parse_url(text)
    except BadNameError as error:
        raise ValueError(f"expected a URL such as https://models.example: {error}") from error
    if url.query is not None:
        raise ValueError("expected a URL without a query")
    return text.rstrip("/")


def read_durability(text: str) -> Durability:
    """`process` or `power`."""
    try:
        return Durability(text)
    except ValueError:
        raise ValueError("expected `process` or `power`") from None


def read_environment_tag(text: str) -> str:
    """The <env> part of a key."""
    if not re.fullmatch(r"[a-z]{2,8}", text):
        raise ValueError("expected two to eight lower-case letters, such as live or test")
    return text


def read_roots(text: str) -> tuple[str, ...]:
    """Absolute paths separated by colons."""
    roots = tuple(part.rstrip("/") for part in text.split(":") if part)
    for root in roots:
        if not root.startswith("/"):
            raise ValueError(f"expected absolute paths separated by `:`, found {root!r}")
    return roots


def read_location(text: str) -> str:
    """A location of a proxy in front: an absolute path of plain segments, without a slash at its end."""
    if not re.fullmatch(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+", text):
        raise ValueError("expected a path of plain segments such as /_blobs, without a slash at its end")
    return text


def read_networks(text: str) -> tuple[str, ...]:
    """Networks, addresses and the word `unix`, separated by commas."""
    networks = tuple(part.strip() for part in text.split(",") if part.strip())
    for network in networks:
        if network != "unix":
            ipaddress.ip_network(network)  # its ValueError says what is wrong with which text
    return networks


def read_servers(text: str) -> tuple[InferenceServer, ...]:
    """URLs of inference servers separated by commas; `tenant=URL` binds one to a tenant."""
    servers = tuple(_read_server(part.strip()) for part in text.split(",") if part.strip())
    urls = [server.url for server in servers]
    for url in urls:
        if urls.count(url) > 1:  # bound twice, or bound and not: tenants would meet there
            raise ValueError(f"{url} is named twice")
    return servers


def _read_server(text: str) -> InferenceServer:
    name, bound, url_text = text.partition("=")
    if not bound or "/" in name:  # no tenant: an equals sign, if any, is in the path
        return InferenceServer(url=_read_server_url(text))
    try:
        tenant = parse_tenant_id(name.strip())
    except BadNameError as error:
        raise ValueError(f"expected tenant=URL: {error}") from error
    return InferenceServer(url=_read_server_url(url_text.strip()), tenant=tenant)


def _read_server_url(text: str) -> str:
    return parse_url(read_url(text)).text()  # one spelling: two of one server would be two servers


def read_mount(text: str) -> str:
    """A path of plain segments; `/` is the root, which is returned as the empty text."""
    return "" if text == "/" else read_location(text)


def read_check_prefixes(text: str) -> tuple[CheckPrefix, ...]:
    """Pairs `PROXY=GATEWAY` of path prefixes, separated by commas; `/` is the root."""
    prefixes = tuple(_read_check_prefix(part.strip()) for part in text.split(",") if part.strip())
    for one in prefixes:
        below = [other for other in prefixes if f"{other.of_proxy}/".startswith(f"{one.of_proxy}/")]
        if below != [one]:  # a path below both could be read as either
            raise ValueError(f"{one.of_proxy or '/'} is named twice, or another prefix lies below it")
    return prefixes


def _read_check_prefix(text: str) -> CheckPrefix:
    of_proxy, equals, of_gateway = text.partition("=")
    if not equals:
        raise ValueError("expected pairs such as /files=/v1/models, separated by commas")
    return CheckPrefix(of_proxy=read_mount(of_proxy.strip()), of_gateway=read_mount(of_gateway.strip()))


def read_service_key(text: str) -> str:
    """A key as it stands in a header. It is never repeated in an error."""
    if not re.fullmatch(r"[\x21-\x7e]{1,512}", text):
        raise ValueError("expected a key: at most 512 printable ASCII characters without spaces")
    return text


def read_origins(text: str) -> tuple[str, ...]:
    """Origins of browsers' pages, separated by commas, as they stand in an `Origin` header."""
    return tuple(_read_origin(part.strip()) for part in text.split(",") if part.strip())


def _read_origin(text: str) -> str:
    if text == "*":
        raise ValueError("expected the origins one by one; `*` would let every page use a key that it has")
    try:
        url = parse_url(text)
    except BadNameError as error:
        raise ValueError(f"expected an origin such as https://app.example: {error}") from error
    if url.path or url.query is not None:
        raise ValueError("expected an origin: scheme, host and port, without a path")
    return url.text()
