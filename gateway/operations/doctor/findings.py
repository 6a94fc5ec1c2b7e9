"""A finding: one row of `cachegate doctor`. What was looked at, how it is, what was found, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from gateway.model.errors import CachegateError
from gateway.resource.unservable import finding_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Level(StrEnum):
    """How it is. A warning is something to know; with a failure the gateway does not work as it should."""

    OK = "ok"
    WARNING = "warning"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One row."""

    name: str
    health: Level
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(name=name, health=Level.OK, found=found)


def warning(name: str, found: str, advice: str) -> Finding:
    """Something to know."""
    return Finding(name=name, health=Level.WARNING, found=found, advice=advice)


def fail(name: str, found: str, advice: str) -> Finding:
    """Something to repair."""
    return Finding(name=name, health=Level.FAIL, found=found, advice=advice)


def look(name: str, check: Callable[[], Finding]) -> Finding:
    """Run one check; what stops it is its finding, so that no check stops the others."""
    try:
        return check()
    except (CachegateError, OSError) as failure:
        return stopped(name, failure)


async def look_async(name: str, check: Callable[[], Awaitable[Finding]]) -> Finding:
    """The same for a check that has to wait."""
    try:
        return await check()
    except (CachegateError, OSError) as failure:
        return stopped(name, failure)


def stopped(name: str, failure: CachegateError | OSError) -> Finding:
    """What a check that could not be finished comes to."""
    found = finding_of(failure) if isinstance(failure, CachegateError) else str(failure)
    return fail(name, found, "repair that, then run `cachegate doctor` again")
