"""Verifies the period that an operator gives to a grant or a publication."""

from __future__ import annotations

import math

from gateway.model.errors import Conflict


def verify_period(not_before: float | None, expires_at: float | None, now: float | None) -> None:
    """Raise `Conflict` for times that are not finite, or between which there would be nothing from now on."""
    if any(time is not None and not math.isfinite(time) for time in (not_before, expires_at, now)):
        raise Conflict("a time is a finite number of seconds")
    if expires_at is None:
        return
    if now is not None and expires_at <= now:
        raise Conflict("the expiry has passed already; to take a right away at once, remove it")
    if not_before is not None and expires_at <= not_before:
        raise Conflict("the expiry lies before the not-before: it would never be in force")
