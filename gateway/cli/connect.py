"""`cachegate connect`: print the settings with which a tenant reaches this gateway, for each way of access.

For copying into a terminal, a compose file or a chat. No key is printed: the tenant has one, and the operator
who runs the command does not know it (I8). Every line that is not the tenant's choice has its reason beside
it.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from gateway.cli.perform import in_session
from gateway.engine.urls import parse_url
from gateway.model.errors import BadNameError
from gateway.model.names import parse_tenant_id
from gateway.operations.known_names import unknown_tenant
from gateway.terminal.console import AsJson, Line, Note, show

if TYPE_CHECKING:
    from gateway.engine.urls import Url
    from gateway.model.names import TenantId
    from gateway.operations.session import OperatorSession

PLACEHOLDER = "<your key>"
LOCAL_URL = "http://127.0.0.1:8080"
NO_ENGINE_FACE = "set CACHEGATE_PUBLIC_URL first: without it there is no engine face"

OWN_CACHE = (
    "# A folder of your own: what is on disk in a shared one, the engine opens to everybody.",
    'export INFERENCE_HOME="$HOME/.cache/inference-{tenant}"',
    "# Ask at every load: else the engine goes on loading for a day after a key was revoked, or by what it",
    "# remembers from before there was a gateway.",
    "export AUTO_LOADER_CACHE_EXPIRATION_MINUTES=0",
)


class ConnectMethod(msgspec.Struct, frozen=True, kw_only=True):
    """One way to reach the gateway, as lines to copy."""

    name: str
    title: str
    lines: tuple[str, ...]
    note: str | None = None


def connect(
    tenant: Annotated[str, typer.Option("--tenant", help="Whose lines.")],
    url: Annotated[
        str | None, typer.Option(help="How clients reach this gateway; the public URL, if it is set.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a tenant sets to use this gateway: with the engine, curl and Python."""
    owner = parse_tenant_id(tenant)
    given = None if url is None else parse_base(url)
    public_url = in_session(lambda session: _public_url(session, owner))
    address = given or parse_base(public_url or LOCAL_URL)
    ways = ways_for(owner, address, has_engine_face=bool(public_url))
    shown: list[Line | Note] = [Line("\n".join((f"# {way.title}", *way.lines, ""))) for way in ways]
    shown += [Note(f"{way.title}: {way.note}", "yellow") for way in ways if way.note]
    show({"tenant": owner, "url": base_of(address), "ways": ways}, shown, as_json=as_json)


async def _public_url(session: OperatorSession, owner: TenantId) -> str | None:
    """How clients reach us. Raises for an unknown tenant."""
    if await session.listing.find_tenant(owner) is None:
        raise unknown_tenant(owner)
    return session.settings.public_url


def parse_base(text: str) -> Url:
    """How clients reach us: a scheme, a host and perhaps a path, and nothing after it."""
    address = parse_url(text)
    if address.query is not None:
        raise BadNameError("the gateway's URL has no query: its routes follow it")
    return address


def base_of(address: Url) -> str:
    """The URL in the form to which the engine appends its paths: without a slash at its end."""
    return address.text().rstrip("/")


def ways_for(owner: TenantId, address: Url, *, has_engine_face: bool) -> tuple[ConnectMethod, ...]:
    """Every way, the simplest first."""
    base = shlex.quote(base_of(address))
    engine = ("export ROBOFLOW_API_KEY=" + shlex.quote(PLACEHOLDER), *_own_cache(owner))
    missing = None if has_engine_face else NO_ENGINE_FACE
    check = (
        f'curl --fail-with-body -H "Authorization: Bearer $ROBOFLOW_API_KEY" {base}/v1/whoami',
        "# Then load as ever: AutoModel.from_pretrained(...)",
    )
    return (
        ConnectMethod(
            name="api-host",
            title="The engine, asking this gateway instead of the platform (set before Python starts)",
            lines=(f"export ROBOFLOW_API_HOST={base}", *engine, *check),
            note=_joined(missing),
        ),
        ConnectMethod(
            name="secure-gateway",
            title="The engine, with everything it sends going through this gateway (instead of the above)",
            lines=(f"export SECURE_GATEWAY={base}", *engine, *check),
            note=_joined(missing, _secure_gateway_note(address)),
        ),
        ConnectMethod(
            name="curl",
            title="curl",
            lines=(
                "export TENANT_KEY=" + shlex.quote(PLACEHOLDER),
                f'curl --fail-with-body -H "Authorization: Bearer $TENANT_KEY" {base}/v1/models',
                "# and for one file, whose link stands in its package's answer:",
                f'curl --fail-with-body -H "Authorization: Bearer $TENANT_KEY" -o FILE {base}LINK',
            ),
        ),
        ConnectMethod(name="httpx", title="Python with httpx", lines=_python("httpx", base_of(address))),
        ConnectMethod(
            name="requests", title="Python with requests", lines=_python("requests", base_of(address))
        ),
    )


def _own_cache(owner: TenantId) -> tuple[str, ...]:
    return tuple(line.replace("{tenant}", owner) for line in OWN_CACHE)


def _python(library: str, base: str) -> tuple[str, ...]:
    session = "Client" if library == "httpx" else "Session"
    return (
        "import os",
        f"import {library}",
        f"with {library}.{session}() as client:",
        '    client.headers["Authorization"] = "Bearer " + os.environ["TENANT_KEY"]',
        f"    answer = client.get({base!r} + '/v1/models')",
        "    answer.raise_for_status()",
        "    print(answer.json())",
    )


def _secure_gateway_note(address: Url) -> str | None:
    """A note for plain http: the engine accepts it only for a loopback address, and else fails at import."""
    literal = address.address
    is_local = address.host == "localhost" or (literal is not None and literal.is_loopback)
    if address.scheme == "https" or is_local:
        return None
    return "the engine refuses plain http here, but for a loopback address; put TLS in front"


def _joined(*notes: str | None) -> str | None:
    """The notes on one way; None when there are none."""
    return "; ".join(note for note in notes if note) or None
