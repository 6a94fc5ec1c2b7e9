"""`cachegate serve`: the gateway, with its workers and the ops listener."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.adapters.embedded_valkey import RunningValkey
from gateway.assembly.app import worker_argument
from gateway.configuration.sources import load_settings
from gateway.faces.ops import ops_app
from gateway.identity.links import load_link_keys
from gateway.operations.doctor.findings import Level, run_check_async
from gateway.operations.doctor.group import check_group
from gateway.operations.session import fact_server, open_session, verify_rights
from gateway.operations.setup import ensure_policy
from gateway.operations.state_folder import verify_state
from gateway.operations.token_keys import ensure_signing_key
from gateway.server.serve_options import ServePlan, TlsFiles
from gateway.server.supervisor import serve as supervise
from gateway.terminal.console import say

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from starlette.types import ASGIApp

    from gateway.configuration.settings import Settings
    from gateway.operations.session import OperatorSession
    from gateway.server.supervisor import Supervisor

MAX_WORKERS = 64


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8080,
    ops_host: Annotated[
        str, typer.Option(help="Address of /healthz, /readyz and /metrics; not for clients.")
    ] = "127.0.0.1",
    ops_port: Annotated[int, typer.Option(min=0, max=65535, help="Their port.")] = 9090,
    admin_host: Annotated[
        str | None, typer.Option(help="Address of the admin API (CACHEGATE_ADMIN_HOST, 127.0.0.1).")
    ] = None,
    admin_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Its port (CACHEGATE_ADMIN_PORT, 9091).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=MAX_WORKERS, help="Worker processes.")] = 1,
) -> None:
    """Serve until SIGTERM or Ctrl-C; then finish what is under way and stop."""
    settings = load_settings()
    verify_state(settings)
    tls = _tls(settings)
    server = fact_server(settings)
    with server as url, _watched(server):
        asyncio.run(_prepare(settings))
        plan = ServePlan(
            factory="gateway.admin.worker:worker_app",
            argument=worker_argument(settings, url),
            host=host,
            port=port,
            ops_host=ops_host,
            ops_port=ops_port,
            admin_host=admin_host or settings.admin_host,
            admin_port=None if settings.admin_public else _chosen(admin_port, settings.admin_port),
            workers=workers,
            grace_seconds=settings.grace_seconds,
            stall_seconds=settings.stall_seconds,
            hang_seconds=float(settings.hang_seconds),
            connections=settings.connections,
            trusted_proxies=settings.trusted_proxies,
            tls=tls,
        )
        scheme = "http" if plan.tls is None else "https"
        supervise(
            plan, _ops_app, partial(_announce, scheme=scheme, has_tokens=settings.public_url is not None)
        )


def _chosen(port: int | None, default: int) -> int:
    return default if port is None else port


def _tls(settings: Settings) -> TlsFiles | None:
    if settings.tls_certificate is None or settings.tls_key is None:  # one alone stopped the start
        return None
    files = TlsFiles(certificate=settings.tls_certificate, key=settings.tls_key)
    files.verify()
    return files


def _watched(server: AbstractContextManager[str]) -> AbstractContextManager[None]:
    """Restart the embedded server when it dies; an external one is its operator's to restart."""
    return server.watched() if isinstance(server, RunningValkey) else nullcontext()


async def _prepare(settings: Settings) -> None:
    """Verify and set up what the first worker needs; errors say in one line what is missing."""
    if settings.public_url is not None:
        load_link_keys(settings.link_key_file)
    async with open_session(settings) as session:
        await verify_rights(session)
        await ensure_policy(session)
        await _prepare_tokens(session)
        await _say_group(session)


async def _prepare_tokens(session: OperatorSession) -> None:
    """Make sure that this node has the key that signs access tokens, where any are issued."""
    if session.settings.public_url is not None:
        await ensure_signing_key(session)


async def _say_group(session: OperatorSession) -> None:
    """Say at the start when revocations cannot be sure, as `doctor` says it. Serving begins all the same."""
    if session.settings.redis_url is None:
        return
    finding = await run_check_async("redis group", lambda: check_group(session.store, session.clock))
    if finding.health is not Level.OK:
        say(f"{finding.name}: {finding.found}; {finding.advice}", style="yellow")


def _ops_app(supervisor: Supervisor) -> ASGIApp:
    return ops_app(supervisor.status)


def _announce(supervisor: Supervisor, *, scheme: str, has_tokens: bool) -> None:
    host, port = supervisor.public_address
    ops_host, ops_port = supervisor.ops_address
    ops = f"http://{ops_host}:{ops_port}"
    say(f"Cachegate serves on {scheme}://{host}:{port} (ops on {ops}). Ctrl-C stops it.")
    if supervisor.admin_address is not None:
        admin_host, admin_port = supervisor.admin_address
        say(f"The admin API is on {scheme}://{admin_host}:{admin_port}/admin/v1.")
    if not has_tokens:
        say("There is no /v1/token: CACHEGATE_PUBLIC_URL, by which access tokens are issued, is unset.")
