"""Which facts the server holds and which this node saw last; and accepting others, on an operator's order.

A server that was restored from a back-up, or failed over to a replica that lagged, may have lost revocations.
Workers and commands refuse it until an operator has checked it and accepts it. No session is used here, since
it would refuse as well.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from gateway.adapters.clock import SystemClock
from gateway.adapters.history_file import HistoryFile
from gateway.adapters.redis_diagnosis import diagnosed
from gateway.adapters.redis_store import RedisStore
from gateway.assembly.components import build_recorder
from gateway.barrier import MARGIN_SECONDS
from gateway.model.errors import Unavailable, UnknownHistory
from gateway.model.verdicts import Change
from gateway.operations.session import actor, fact_server
from gateway.operations.state_folder import verify_state

if TYPE_CHECKING:
    from gateway.configuration.settings import Settings
    from gateway.model.stores import Moment


class HistoryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the server holds now, and what this node saw last."""

    where: str
    present: Moment  # an empty history: no fact was ever written there
    seen: Moment | None
    is_known: bool


async def load_report(settings: Settings) -> HistoryReport:
    """Read the server's history and this node's file."""
    async with fact_server(settings) as url:
        memory = HistoryFile(settings.history_file)
        store = RedisStore(url, history=memory)
        try:
            async with diagnosed(url):
                present = await store.moment()
            is_known = True
            try:
                await store.verify_history()
            except UnknownHistory:
                is_known = False
        finally:
            with suppress(Unavailable):
                await store.close()
        return HistoryReport(where=store.display, present=present, seen=memory.load(), is_known=is_known)


def accept_history(settings: Settings, present: Moment) -> None:
    """Accept the facts on the server as the known ones, on an operator's order. Recorded like every change.

    It uses no session: none can be opened while the facts are not the known ones.
    """
    verify_state(settings)
    clock = SystemClock()
    recorder = build_recorder(settings, clock)
    try:
        subject = (f"history {present.history or 'none'}",)
        receipt = recorder.change(
            Change(actor=actor(), action="directory.accept", subject=subject, received_at=clock.now())
        )
        try:
            HistoryFile(settings.history_file).accept(present)
            # A worker may hold a lease from before the server was restored. A later revocation cannot ask
            # about that lease, so wait until it has run out.
            time.sleep(settings.lease_milliseconds / 1000 + MARGIN_SECONDS)
        except Unavailable:
            receipt.close(generation=None, result="unavailable")
            raise
        receipt.close(generation=present.generation, result="done")
    finally:
        recorder.close()
