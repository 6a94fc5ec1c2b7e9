"""A finding: one result of `cachegate doctor`, with what was checked, its state, and what to do."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.model.errors import CachegateError
from gateway.resource.unservable import finding_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Level(StrEnum):
    """The state. With a warning the gateway works; with a failure it does not work as it should."""

    OK = "ok"
    WARNING = "warning"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One result."""

    name: str
    health: Level
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Finding:
    """A finding without a problem."""
    return Finding(name=name, health=Level.OK, found=found)


def warning(name: str, found: str, advice: str) -> Finding:
    """A finding that the operator should know of."""
    return Finding(name=name, health=Level.WARNING, found=found, advice=advice)


def fail(name: str, found: str, advice: str) -> Finding:
    """A finding that needs a repair."""
    return Finding(name=name, health=Level.FAIL, found=found, advice=advice)


def run_check(name: str, check: Callable[[], Finding]) -> Finding:
    """Run one check; an error that stops it becomes its finding, so that no check stops the others."""
    try:
        return check()
    except (CachegateError, OSError) as failure:
        return stopped(name, failure)


async def run_check_async(name: str, check: Callable[[], Awaitable[Finding]]) -> Finding:
    """The same for an asynchronous check."""
    try:
        return await check()
    except (CachegateError, OSError) as failure:
        return stopped(name, failure)


def stopped(name: str, failure: CachegateError | OSError) -> Finding:
    """The finding for a check that an error stopped."""
    found = finding_of(failure) if isinstance(failure, CachegateError) else str(failure)
    return fail(name, found, "repair that, then run `cachegate doctor` again")
