"""What a process offers to the middleware while its guard runs. `gateway.inprocess.app` implements it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from gateway.credential.client import TrustedNetworks
    from gateway.delivery.file_answer import Means
    from gateway.guard import Guard
    from gateway.model.clocks import Clock
    from gateway.telemetry import Telemetry
    from gateway.transfers import Transfers


class Running(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A guard that runs, and what belongs to it."""

    guard: Guard
    clock: Clock
    telemetry: Telemetry
    transfers: Transfers
    trusted_proxies: TrustedNetworks
    means: Means


class GuardProcess(Protocol):
    """The guard of this process."""

    @property
    def now_running(self) -> Running | None:
        """The guard, while it runs in this very process; None before, after, and in a forked child."""

    def running(self) -> AbstractAsyncContextManager[object]:
        """Run it for as long as this context lasts. Raises what keeps it from starting."""
