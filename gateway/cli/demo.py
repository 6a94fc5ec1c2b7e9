"""`cachegate demo`: a whole installation in a temporary folder, and a tour through it over HTTP.

It needs no set-up and leaves nothing behind. It runs what runs in production: the same `init`, the same
operations as the commands, a real Valkey, a real `cachegate serve`; only the cache's content is made up. With
`--check` the tour is a test: it exits 0 only when every answer was the expected one, and the audit log agrees
with the client and verifies.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.audit.verify import verify
from gateway.cli.audit.report import complaints as audit_complaints
from gateway.cli.audit.report import shown_report
from gateway.demo.ledger import check_ledger, load_ledger
from gateway.demo.report import print_curl, print_ledger, print_verdict, print_visits
from gateway.demo.served_gateway import DemoGateway
from gateway.demo.tour import plan_tour, take_tour
from gateway.demo.world import build_world, demo_settings, revoke
from gateway.model.errors import Misconfigured
from gateway.operations.state_folder import make_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

HOST = "127.0.0.1"


def demo(
    check: Annotated[
        bool, typer.Option("--check", help="Test it: exit 0 only if every answer and record is as expected.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to serve on: 8080, or any free one with --check."),
    ] = None,
) -> None:
    """Show the gateway at work, on a made-up cache with made-up tenants. Needs no set-up, leaves nothing."""
    wanted = port if port is not None else 0 if check else 8080
    _verify_free(wanted)
    with _ending_in_order(), _temporary_folder() as folder:
        complaints = _show(folder, wanted, stays=not check)
    raise typer.Exit(1 if complaints else 0)


def _show(folder: Path, port: int, *, stays: bool) -> list[str]:
    """Build, serve, take the tour, check the records; then serve until Ctrl-C if `stays`."""
    settings = demo_settings(folder)
    make_state(settings)
    with EmbeddedValkey(settings.state).running():  # one server for everything below
        world = asyncio.run(build_world(settings))
        with DemoGateway.running(folder, HOST, port) as gateway:
            steps = plan_tour(world)
            visits = take_tour(
                steps, gateway.host, gateway.port, revoke=lambda key: asyncio.run(revoke(settings, key))
            )
            print_visits(visits)
            ledger = load_ledger(settings.audit_folder, [visit.record_id for visit in visits])
            print_ledger(visits, ledger)
            complaints = [complaint for visit in visits for complaint in visit.complaints]
            complaints += check_ledger(visits, ledger)
            report = verify(settings.audit_folder)
            for item in shown_report("of the demo", report):
                item.print()
            complaints += audit_complaints(report)
            print_verdict(complaints)
            if stays:
                with suppress(KeyboardInterrupt):  # Ctrl-C is the normal end
                    print_curl(world, gateway.host, gateway.port)
                    gateway.stay()
    return complaints


def _verify_free(port: int) -> None:
    """Raise at once if a port is taken; otherwise it would take seconds until serving fails."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise Misconfigured(
                f"port {port}", f"cannot be used ({error.strerror}); name another one with --port"
            ) from error


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cachegate-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the demo as Ctrl-C does, so that everything is cleaned up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
