"""The options from when and until when something counts, and how its period is shown in tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from gateway.adapters.clock import SystemClock
from gateway.directory.edits.periods import verify_period
from gateway.identity.times import parse_duration, parse_moment
from gateway.model.errors import BadNameError
from gateway.model.moments import when
from gateway.model.periods import moment_text, state_text

if TYPE_CHECKING:
    from gateway.operations.listings import GrantView, RuleView

Expires = Annotated[
    str | None, typer.Option(help="When it ends: 2d, or 2030-01-31T12:00:00Z. Without it, never.")
]
NotBefore = Annotated[
    str | None, typer.Option(help="When it begins: 12h, or 2030-01-31T12:00:00Z. Without it, at once.")
]


class AskedPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """The times that a command was given, and when. `said` is what the record of the change has of them."""

    now: float
    not_before: float | None
    expires_at: float | None

    @property
    def told(self) -> dict[str, str | None]:
        """The times, as a gateway is told them."""
        return {"not_before": when(self.not_before), "expires_at": when(self.expires_at)}

    @property
    def said(self) -> tuple[str, ...]:
        """The times as text."""
        times = (("from", self.not_before), ("until", self.expires_at))
        return tuple(f"{word} {moment_text(time)}" for word, time in times if time is not None)


def parse_period(expires: str | None, not_before: str | None) -> AskedPeriod:
    """Parse both options, to the second; a duration counts from now. Raises `Conflict` for no period."""
    now = SystemClock().now()
    asked = AskedPeriod(
        now=now,
        not_before=None if not_before is None else float(math.ceil(parse_moment(not_before, now))),
        expires_at=None if expires is None else float(math.floor(parse_moment(expires, now))),
    )
    verify_period(asked.not_before, asked.expires_at, now)
    return asked


PERIOD_COLUMNS = ("state", "from", "until")


def period_cells(one: GrantView | RuleView) -> tuple[str | None, str | None, str | None]:
    """Return the cells of these columns."""
    return (state_text(one.state) if has_period(one) else None), one.not_before, one.expires_at


def has_period(one: GrantView | RuleView) -> bool:
    """Whether it begins or ends. A table has these columns where something in it does."""
    return one.not_before is not None or one.expires_at is not None


def parse_past(text: str | None, now: float) -> float | None:
    """A moment of the past: a duration counts back from now."""
    if text is None:
        return None
    try:
        return now - parse_duration(text)
    except BadNameError:
        return parse_moment(text, now)
