"""The feed: one connection by which a worker hears of every change, and renews its lease.

`CLIENT TRACKING ON BCAST` makes the server push the names of all facts that change, over RESP3, to
this connection. Each transaction also writes a record whose name ends in its generation and mark
(`redis_transaction.py`), so that a push says how far the changes have been heard: the names of one
transaction come in one push, and pushes come in order. One that is missing ends the connection.

A renewal is a script over the same connection. It checks that what this node noted is in the server's past,
registers the worker with the generation that it acknowledges, and returns the moment. Right behind it, and
so counting for it, `WAIT` asks how many replicas have it: first whether enough for a lease, then whether
all. A primary that was replaced is left by its replicas within a second or two and then gives no more
leases; where the Sentinels name another server by then, the feed goes there.

The client library's asynchronous connections hide pushes behind a pool, so this is a reader of our own
on one socket, with the library's parser. It knows a few commands and nothing of facts: what a push or
a renewal means is for the `Listener`.

Whatever goes wrong ends the connection; a new one begins with an empty memory.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import hiredis

from gateway.adapters.redis_connect import connect_raw
from gateway.adapters.redis_errors import translated
from gateway.adapters.redis_fleet import renew_command
from gateway.adapters.redis_marks import VERIFY, check_arguments, check_keys, parse_group, parse_moment
from gateway.adapters.redis_transaction import STEPS
from gateway.adapters.redis_url import make_place
from gateway.model.errors import Unavailable, UnknownHistory
from gateway.model.groups import Renewal, lease_quorum

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.adapters.redis_place import Place
    from gateway.adapters.redis_sentinels import Host
    from gateway.adapters.redis_url import RedisAddress, RedisLimits
    from gateway.model.ports import MonotonicClock
    from gateway.model.stores import Moment

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0

LEASE_WAIT_MILLISECONDS = 200  # for the replicas that a lease needs; healthy ones take one or two
ALL_WAIT_MILLISECONDS = 20  # for the others: what they do not have now is asked of the next renewal
MAX_WITHOUT_QUORUM = 5  # the lease is over by then, and a new connection costs nothing more
ASK_AGAIN_SECONDS = 1.0  # how often the Sentinels are asked while replicas are missing

_NOTHING = object()
_STEP = re.compile(re.escape(STEPS) + rb"([0-9]{1,18})(?::([0-9a-f]{16}))?")


class Listener(Protocol):
    """Whoever is told. All calls come from the event loop and return at once."""

    @property
    def note(self) -> Moment | None:
        """What a server must have in its past."""

    @property
    def acknowledged(self) -> int:
        """The generation to acknowledge."""

    def connected(self, moment: Moment, group: int) -> None:
        """Changes after this moment will be told, by a group of so many; nothing is known of those before."""

    def refused(self) -> None:
        """The server's history is not the one; nothing will be told."""

    def disconnected(self) -> None:
        """No change will be told until `connected` is called again."""

    def changed(self, names: Iterable[bytes] | None) -> None:
        """These records changed; None: any of them may have."""

    def applied(self, steps: Sequence[tuple[int, str]]) -> None:
        """These generations, with their marks, follow the last ones; `changed` was called for them."""

    def renewed(self, renewal: Renewal) -> None:
        """A renewal was answered."""


class RedisFeed:
    """Keeps a feed connection alive for as long as `run` runs."""

    def __init__(
        self,
        address: RedisAddress,
        limits: RedisLimits,
        *,
        worker: str,
        prefix: bytes,
        renew_seconds: float,
        lease_seconds: float,
        clock: MonotonicClock,
        place: Place | None = None,
    ) -> None:
        self._address = address
        self._limits = limits
        self._worker = worker.encode()
        self._prefix = prefix
        self._renew_seconds = renew_seconds
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._place = place or make_place(address, limits)
        self._number = 0  # of the last renewal: an entry that is written again is seen to be another
        self._asked_at = float("-inf")
        self.reconnects = 0

    async def run(self, listener: Listener) -> None:
        """Connect, listen, renew; and again, when that ends."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._listen(listener)
            except (Unavailable, OSError, TimeoutError, ssl.SSLError):
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                pause = FIRST_PAUSE_SECONDS
            finally:
                listener.disconnected()
            self.reconnects += 1
            await asyncio.sleep(pause)

    async def _listen(self, listener: Listener) -> None:
        connection = _Connection(listener)
        async with asyncio.timeout(self._limits.connect_seconds):
            await connect_raw(self._address, self._limits, connection, self._place)
        try:
            if self._place.is_asked_for:
                connection.host = await self._place.find()
            await self._greet(connection)
            # Tracking is on by now: whatever changes after this answer is pushed behind it.
            note = listener.note
            keys = check_keys(note)
            command = (b"EVAL", VERIFY, b"%d" % len(keys), *keys, *check_arguments(note))
            is_known, moment, group = _moment(await self._ask(connection, command))
            self._verify(listener, is_known=is_known)
            listener.connected(moment, group)
            connection.begin(moment.generation)
            connection.group = group
            while not connection.is_over.is_set():
                await self._renew(connection, listener)
                if listener.acknowledged > connection.acknowledged:
                    continue  # what has just been noted: whoever revoked waits for it
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._renew_seconds):
                        await connection.news.wait()
        finally:
            connection.close()

    def _verify(self, listener: Listener, *, is_known: bool) -> None:
        if not is_known:
            listener.refused()
            raise UnknownHistory(self._address.display)

    async def _greet(self, connection: _Connection) -> None:
        login: tuple[bytes, ...] = ()
        if self._address.password is not None:
            user = (self._address.username or "default").encode()
            login = (b"AUTH", user, self._address.password.encode())
        await self._ask(connection, (b"HELLO", b"3", *login, b"SETNAME", b"cachegate-feed"))
        if self._address.db:
            await self._ask(connection, (b"SELECT", str(self._address.db).encode()))
        await self._ask(connection, (b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", self._prefix))

    async def _renew(self, connection: _Connection, listener: Listener) -> None:
        connection.news.clear()
        self._number += 1
        acknowledged = listener.acknowledged
        sent_at = self._clock.monotonic()
        group = connection.group
        renewal = renew_command(
            listener.note, self._worker, acknowledged, self._number, lease_seconds=self._lease_seconds
        )
        commands = [renewal]
        if lease_quorum(group) > 1:
            commands.append((b"WAIT", b"%d" % (lease_quorum(group) - 1), b"%d" % LEASE_WAIT_MILLISECONDS))
        if group > 1:
            commands.append((b"WAIT", b"%d" % (group - 1), b"%d" % ALL_WAIT_MILLISECONDS))
        replies = await self._ask(connection, *commands)
        reply, *counts = replies if len(commands) > 1 else [replies]
        is_known, moment, group_now = _moment(reply)
        self._verify(listener, is_known=is_known)
        connection.acknowledged = acknowledged
        connection.group = group_now
        held = 1 + max((count for count in counts if isinstance(count, int)), default=0)
        listener.renewed(Renewal(sent_at=sent_at, moment=moment, group=connection.group, held=held))
        is_enough = held >= lease_quorum(connection.group)
        connection.without_quorum = 0 if is_enough else connection.without_quorum + 1
        if connection.without_quorum > MAX_WITHOUT_QUORUM:
            connection.close()  # an address may lead to another server by now
        elif held < connection.group:
            await self._ask_where(connection)

    async def _ask_where(self, connection: _Connection) -> None:
        """Replicas are missing: perhaps they follow another server by now. The Sentinels know."""
        now = self._clock.monotonic()
        if not self._place.is_asked_for or now - self._asked_at < ASK_AGAIN_SECONDS:
            return
        self._asked_at = now
        with suppress(Unavailable):
            if await self._place.find(is_anew=True) != connection.host:
                connection.close()

    async def _ask(self, connection: _Connection, *commands: tuple[bytes, ...]) -> Any:
        with translated(self._address.display):
            async with asyncio.timeout(self._limits.operation_seconds):
                return await connection.ask(commands)


class _Connection(asyncio.Protocol):
    """One socket: commands out, replies and pushes in."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._parser = hiredis.Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[Any] | None = None
        self._awaited = 0
        self._replies: list[Any] = []
        self._early: list[list[bytes]] = []  # pushes from before `begin`
        self._applied: int | None = None  # the last generation that was told; None before `begin`
        self.host: Host | None = None  # what the Sentinels named
        self.group = 1
        self.without_quorum = 0  # renewals one after the other that too few servers had
        self.acknowledged = 0  # what the last renewal said
        self.news = asyncio.Event()  # something was applied that should be acknowledged, or it is over
        self.is_over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a stream's transport

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_over.set()
        self.news.set()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionError("the feed connection broke"))

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        try:
            while (message := self._parser.gets()) is not _NOTHING:
                if isinstance(message, hiredis.PushNotification):
                    self._push(message)
                elif self._reply is not None and not self._reply.done():
                    self._replies.append(message)
                    if len(self._replies) == self._awaited:
                        self._reply.set_result(self._replies)
        except hiredis.ProtocolError:
            self.close()  # whoever speaks there, it is no server of ours

    async def ask(self, commands: Sequence[tuple[bytes, ...]]) -> Any:
        """Send commands at once and await their replies; of one, its reply.

        Whoever gives up ends the connection.
        """
        if self._transport is None or self.is_over.is_set():
            raise ConnectionError("the feed connection is closed")
        self._reply = asyncio.get_running_loop().create_future()
        self._replies, self._awaited = [], len(commands)
        packed = [hiredis.pack_command(one) for one in commands]  # type: ignore[arg-type] # of any length
        self._transport.write(b"".join(packed))
        try:
            replies = await self._reply
        except BaseException:
            self.close()
            raise
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise ConnectionError(str(reply))
        return replies if len(commands) > 1 else replies[0]

    def begin(self, generation: int) -> None:
        """Tell of what is pushed from here on, and of what was pushed since this generation was read."""
        self._applied = generation
        early, self._early = self._early, []
        for names in early:
            self._tell(names)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _push(self, message: list[Any]) -> None:
        if message[0] != b"invalidate":
            return
        names: list[bytes] | None = message[1]
        if names is None:
            # The server forgot what it tracked: only a new beginning tells how far we have heard.
            self._listener.changed(None)
            self.close()
            return
        if self._applied is None:
            self._early.append(names)
        else:
            self._tell(names)

    def _tell(self, names: list[bytes]) -> None:
        """What changed, then how far that goes. Steps that end by themselves come again, to no effect."""
        applied = self._applied or 0
        found = [match for name in names if (match := _STEP.fullmatch(name))]
        steps = sorted((int(match[1]), match[2]) for match in found if int(match[1]) > applied)
        self._listener.changed(names)
        if not steps:
            return
        if [number for number, _ in steps] != list(range(applied + 1, applied + 1 + len(steps))):
            self.close()  # one was not told: only a new beginning says how far we have heard
            return
        if any(mark is None for _, mark in steps):
            self.close()  # written by an older version: its mark is none that we could know
            return
        self._applied = steps[-1][0]
        self._listener.applied([(number, mark.decode()) for number, mark in steps])
        self.news.set()


def _moment(reply: Any) -> tuple[bool, Moment, int]:
    """What the check found; a server that says something else is none of ours."""
    match reply:
        case [int() as known, _, _, _, _] if all(one is None or isinstance(one, bytes) for one in reply[1:]):
            counter, mark, history, group = reply[1:]
            size = parse_group(group)
            return known == 1, parse_moment((counter, mark, history)), 1 if size is None else size.servers
    raise ConnectionError("the reply is not a generation")
