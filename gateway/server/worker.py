"""One worker process: an event loop, uvicorn, the application, and a control channel to the supervisor.

The supervisor starts it with inherited sockets: the control channel, the public listener, and that of the
admin API where there is one. The channel
first carries the order (what to run), then requests and commands, one a line; the worker answers with one
JSON object a line. When the channel closes, the supervisor is gone. A worker must not serve unsupervised, so
it then stops as if it had been told to.

    supervisor                          worker
    <the order, its length first>
                                        {"serving": true}, or {"failed": {...}} and the end
    status? 7                           {"id": 7, "status": {"ready": {...}, "counters": {...}}}
    stop                                {"id": 0, "status": {...}} and the end

SIGINT from a terminal reaches every process of it; workers ignore it and leave it to the supervisor.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import resource
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn
import uvloop

from gateway.credential.client import parse_trusted_networks
from gateway.model.errors import Misconfigured, Unavailable
from gateway.model.hidden_fields import shown
from gateway.model.trusted_files import refusal_of, verify_trusted
from gateway.server.acceptor import MAX_CONNECTIONS, Bounds, ConnectionCounts, room
from gateway.server.listener import BACKLOG, Beside, QuietServer
from gateway.server.protocol import worker_protocol
from gateway.server.stall_clock import STALL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from gateway.model.at_once import AtOnce
    from gateway.server.early_refusal import EarlyRefusal

    OnRefused = Callable[[EarlyRefusal, str, Callable[[str | None], None]], None]

logger = logging.getLogger(__name__)

LENGTH_BYTES = 8  # of the order's length, big-endian
YOUNG_OBJECTS = 20_000
"""New objects between two garbage collections of the young ones, which then take a millisecond.

A request makes some sixty, none of them part of a cycle: with Python's own limit of 700, collections took an
eighth of a worker's time.
"""

ADMIN_CONNECTIONS = 128  # of the admin API: operators and their programs; a descriptor each, set aside

EXIT_MISCONFIGURED = 2
EXIT_UNAVAILABLE = 3


class WorkerApp(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker's factory returns: the ASGI application, and the callbacks of the server.

    `report` returns `{"ready": {name: bool}, "counters": {name: number}}`. It is called in the event loop,
    so it must not block. `on_refused` is called for requests that the server refused itself, with the peer's
    address; it calls its last argument with the id of the record, if it made one, and does not raise.
    `at_once` answers what it can without waiting (`at_once.py`). `admin` is the ASGI application of the
    second listener; it lives as long as `app` does. `on_replacing` is called at the start if this worker
    replaces one that hung, with how long ago that one answered last. `on_stopping` is called when the worker
    is told to stop: answers that would go on for ever have to end then.
    """

    app: Callable[..., Any]
    report: Callable[[], dict[str, Any]]
    on_refused: OnRefused | None = None
    at_once: AtOnce | None = None
    admin: Callable[..., Any] | None = None
    on_replacing: Callable[[float], None] | None = None
    on_stopping: Callable[[], None] | None = None


class WorkerOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to run, sent to it as JSON. `tls` holds uvicorn's `ssl_` arguments."""

    factory: str  # module:function, called in the worker with `argument`, returns a WorkerApp
    argument: Any  # of JSON's types; it may hold the password of a URL
    grace_seconds: int
    keep_alive_seconds: int
    stall_seconds: float = STALL_SECONDS
    connections: int = MAX_CONNECTIONS
    trusted_proxies: tuple[str, ...] = ()  # networks whose addresses carry many clients each
    tls: dict[str, Any]
    after_hang_seconds: float | None = None  # how long ago the worker answered last that this one replaces

    def __repr__(self) -> str:
        return shown(self, hidden=("argument", "tls"))


def main() -> None:
    """Run the worker process. Its last arguments are the descriptors of the channel and of its listeners."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control, *listeners = [socket.socket(fileno=int(descriptor)) for descriptor in sys.argv[2:]]
    for inherited in (control, *listeners):
        inherited.set_inheritable(False)  # processes that the application starts must not get them
    order = _load_order(control)
    max_files = _allow_many_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(_run(order, control, listeners, max_files))
    sys.exit(status)


def _allow_many_files() -> int:
    """Raise the limit of open files to the hard limit: a transfer holds three; the usual limit is 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def _load_order(control: socket.socket) -> WorkerOrder:
    length = int.from_bytes(_receive(control, LENGTH_BYTES), "big")
    raw_order = _receive(control, length)
    return msgspec.json.decode(raw_order, type=WorkerOrder)


def _receive(control: socket.socket, count: int) -> bytes:
    """Receive exactly `count` bytes; exit when the channel closes, as the supervisor is gone."""
    received = bytearray()
    while len(received) < count:
        piece = control.recv(count - len(received))
        if not piece:
            sys.exit(0)
        received += piece
    return bytes(received)


async def _run(
    order: WorkerOrder, control: socket.socket, listeners: list[socket.socket], max_files: int
) -> int:
    reader, writer = await asyncio.open_connection(sock=control)
    try:
        await _serve(order, listeners, reader, writer, max_files)
    except Misconfigured as error:
        _say(writer, {"failed": {"where": error.where, "why": error.why}})
        return EXIT_MISCONFIGURED
    except Unavailable as error:
        _say(writer, {"failed": {"dependency": error.dependency, "why": error.why, "reason": error.reason}})
        return EXIT_UNAVAILABLE
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)  # the supervisor may be gone
    return 0


async def _serve(
    order: WorkerOrder,
    listeners: list[socket.socket],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    max_files: int,
) -> None:
    worker_app = _find_factory(order.factory)(order.argument)
    if worker_app.on_replacing is not None and order.after_hang_seconds is not None:
        worker_app.on_replacing(order.after_hang_seconds)
    watched = _WatchedApp(worker_app.app)
    counts, of_admin = ConnectionCounts(), ConnectionCounts()
    report = _Reporting(partial(_report, worker_app, (counts, of_admin)))

    def on_serving() -> None:
        # What was made at start-up stays. Without freezing it, each full garbage collection would scan all
        # of it and block the worker for tens of milliseconds.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)
        _say(writer, {"serving": True})

    public, *beside = listeners
    server = QuietServer(
        _config(order, worker_app, watched, counts),
        on_serving=on_serving,
        beside=[_admin(order, worker_app, one, of_admin) for one in beside],
        bounds=Bounds(
            connections=room(order.connections, max_files - ADMIN_CONNECTIONS * len(beside)),
            stall_seconds=order.stall_seconds,
            without_share=parse_trusted_networks(order.trusted_proxies),
        ),
        counts=counts,
        on_stopping=worker_app.on_stopping,
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
    answering = asyncio.create_task(_answer(reader, writer, report, server))
    try:
        await server.serve(sockets=[public])
    except SystemExit:
        # uvicorn exits like this when the application's start failed. Raise the application's own error.
        if watched.failure is not None:
            raise watched.failure from None
        raise
    finally:
        answering.cancel()
        await asyncio.wait([answering])
    if not answering.cancelled():
        answering.result()  # raise the defect that ended it and thereby stopped the worker
    _say(writer, {"id": 0, "status": report()})


def _admin(
    order: WorkerOrder, worker_app: WorkerApp, listener: socket.socket, counts: ConnectionCounts
) -> Beside:
    """The listener of the admin API. Its connections are bounded by themselves: clients cannot take them."""
    if worker_app.admin is None:
        raise Misconfigured("admin", "there is a listener for it, and the application has no admin API")
    return Beside(
        listener=listener,
        config=_config(order, worker_app, worker_app.admin, counts),
        bounds=Bounds(connections=ADMIN_CONNECTIONS, stall_seconds=order.stall_seconds),
        counts=counts,
    )


def _report(worker_app: WorkerApp, counts: Sequence[ConnectionCounts]) -> dict[str, Any]:
    """The application's report, with what only the server counts: the connections of all its listeners."""
    report = worker_app.report()
    counted = {
        "cachegate_connections_refused_total": sum(one.refused for one in counts),
        "cachegate_connections_stalled_total": sum(one.stalled for one in counts),
    }
    gauges = {**report.get("gauges", {}), "cachegate_connections": sum(one.open for one in counts)}
    return {**report, "counters": {**report["counters"], **counted}, "gauges": gauges}


async def _answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    report: Callable[[], dict[str, Any]],
    server: QuietServer,
) -> None:
    """Answer the supervisor until the channel closes, then stop the server."""
    try:
        async for line in reader:
            order, _, argument = line.strip().partition(b" ")
            if order == b"stop":
                server.stop()
            elif order == b"status?":
                _say(writer, {"id": int(argument), "status": report()})
    finally:
        server.stop()


class _Reporting:
    """The application's report. When it raises, the worker is reported as not ready, and goes on."""

    def __init__(self, report: Callable[[], dict[str, Any]]) -> None:
        self._report = report
        self._last: dict[str, Any] = {"counters": {}, "gauges": {}}

    def __call__(self) -> dict[str, Any]:
        try:
            self._last = self._report()
        except Exception:
            logger.exception("the worker's report failed")
            return {**self._last, "ready": {"report": False}}
        return self._last


def _say(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(msgspec.json.encode(message) + b"\n")


def _find_factory(name: str) -> Callable[[Any], WorkerApp]:
    module, _, function = name.partition(":")
    factory: Callable[[Any], WorkerApp] = getattr(importlib.import_module(module), function)
    return factory


def _config(
    order: WorkerOrder, worker_app: WorkerApp, app: Callable[..., Any], counts: ConnectionCounts
) -> uvicorn.Config:
    def count_stall() -> None:
        counts.stalled += 1

    config = uvicorn.Config(
        app,
        http=worker_protocol(
            on_refused=worker_app.on_refused,
            on_stall=count_stall,
            at_once=worker_app.at_once if app is not worker_app.admin else None,
            stall_seconds=order.stall_seconds,
        ),
        ws="none",
        lifespan="on",  # `auto` would serve an application whose start-up failed
        interface="asgi3",
        proxy_headers=False,  # forwarding headers are evaluated in one place (`credential/client.py`)
        server_header=False,
        access_log=False,  # it would write query strings down
        log_config=None,
        backlog=BACKLOG,
        timeout_keep_alive=order.keep_alive_seconds,
        timeout_graceful_shutdown=order.grace_seconds,
        **order.tls,
    )
    verify_tls(order.tls)  # at each start of a worker, as this is when the files are read
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise Misconfigured("TLS certificate or key", f"cannot be loaded: {error}") from error
    return config


def verify_tls(tls: Mapping[str, Any]) -> None:
    """Raises `Misconfigured` for a file among uvicorn's `ssl_` arguments that other users may write.

    Who can replace key and certificate can read what clients send, API keys included.
    """
    for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"):
        if name in tls:
            path = Path(tls[name])
            try:
                verify_trusted(path)
            except OSError as error:
                why = f"cannot be loaded: {path}: {refusal_of(path, error)}"
                raise Misconfigured("TLS certificate or key", why) from error


class _WatchedApp:
    """The application; keeps the exception of its start, which uvicorn only logs."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app
        self.failure: Misconfigured | Unavailable | None = None

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Pass requests on without wrapping them in another coroutine."""
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
        answer: Awaitable[None] = self._app(scope, receive, send)
        return answer

    async def _lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._app(scope, receive, send)
        except (Misconfigured, Unavailable) as error:
            self.failure = error
            # The supervisor tells the operator, in one line; uvicorn would add a traceback.
            logging.getLogger("uvicorn.error").disabled = True
            raise
