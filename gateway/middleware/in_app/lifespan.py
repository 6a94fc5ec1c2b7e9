"""The guard is started before the app and ended after it, by the server's lifespan messages.

What keeps the guard from starting (no state folder, no Redis, a pepper that does not match) is said to the
server as a failed start, with its cause: a server then ends instead of answering 503 to everything. An app
that knows no lifespan is fine; then only the guard has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gateway.middleware.in_app.running import GuardProcess

STARTED, NOT_STARTED = "lifespan.startup.complete", "lifespan.startup.failed"
ENDED = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")


async def live_with(process: GuardProcess, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the guard for as long as the app lives."""
    startup = await receive()
    running = process.running()
    try:
        await running.__aenter__()
    except Exception as error:
        await send({"type": NOT_STARTED, "message": f"cachegate: {error}"})
        if isinstance(error, Misconfigured | Unavailable):
            return
        raise
    life = _AppsLife(startup, receive, send)
    try:
        await life.run(app, scope)
    finally:
        await running.__aexit__(None, None, None)
    if life.last is not None:
        await send(life.last)


class _AppsLife:
    """The app's side of the messages; its last one is sent when the guard has ended as well."""

    def __init__(self, startup: Message, receive: Receive, send: Send) -> None:
        self.last: Message | None = None
        self._waiting: list[Message] = [startup]
        self._receive = receive
        self._send = send
        self._has_answered = False

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Have the app live to its end; for one without a lifespan, wait for the end of the server."""
        try:
            await app(scope, self._hear, self._say)
        except Exception:
            if self._has_answered:
                raise
        if self._has_answered:
            return
        await self._send({"type": STARTED})
        if self._waiting or (await self._receive())["type"] == "lifespan.startup":
            await self._receive()
        self.last = {"type": ENDED[0]}

    async def _hear(self) -> Message:
        return self._waiting.pop() if self._waiting else await self._receive()

    async def _say(self, message: Message) -> None:
        self._has_answered = True
        if message["type"] in ENDED:
            self.last = message
        else:
            await self._send(message)
