"""The feed: one connection per worker that receives invalidations and renews the worker's lease.

`CLIENT TRACKING ON BCAST` makes the server push the names of all changed facts over RESP3 to this connection.
Each transaction also writes a record whose name ends in its generation and mark (`redis_transaction.py`), so
that a push says up to which generation changes were received. The names of one transaction come in one push,
and pushes come in order. A missing generation ends the connection.

A renewal is a script over the same connection. It checks that the moment noted by this node is in the
server's past, registers the worker with the generation that it acknowledges, and returns the current moment.
`WAIT` follows on the same connection, so it counts replicas that have this write: first enough of them for a
lease, then all. The replicas of a primary that was replaced leave it within a second or two, and then it can
give no more leases; if the Sentinels name another server by then, the feed reconnects there.

redis-py's asynchronous connections hide pushes behind a pool, so this module reads one socket itself, with
the hiredis parser. It knows a few commands and nothing of facts: the `Listener` interprets pushes and
renewals.

Every failure ends the connection; a new one begins with an empty memory.
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

    from gateway.adapters.redis_place import ServerAddress
    from gateway.adapters.redis_sentinels import Host
    from gateway.adapters.redis_url import RedisAddress, RedisLimits
    from gateway.model.clocks import MonotonicClock
    from gateway.model.stores import Moment

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0

LEASE_WAIT_MILLISECONDS = 200  # for the replicas that a lease needs; healthy ones take 1 or 2 ms
ALL_WAIT_MILLISECONDS = 20  # for the other replicas: the next renewal asks again for what they lack
FIRST_RETRY_SECONDS = 0.005  # doubled up to the time between renewals: a replica that is gone costs little
MAX_WITHOUT_QUORUM = 5  # the lease has expired by then, so a new connection costs nothing more
ASK_AGAIN_SECONDS = 1.0  # how often the Sentinels are asked while replicas are missing

_NOTHING = object()
_STEP = re.compile(re.escape(STEPS) + rb"([0-9]{1,18})(?::([0-9a-f]{16}))?")


class Listener(Protocol):
    """Receives the events of the feed. All calls come from the event loop and return at once."""

    @property
    def note(self) -> Moment | None:
        """The moment that a server must have in its past."""

    @property
    def acknowledged(self) -> int:
        """The generation to acknowledge."""

    @property
    def is_behind(self) -> bool:
        """Whether something was applied that cannot be acknowledged yet."""

    def connected(self, moment: Moment, group: int) -> None:
        """Later changes than this moment will be reported; `group` is the number of servers."""

    def refused(self) -> None:
        """The server's history is not the known one; no change will be reported."""

    def disconnected(self) -> None:
        """No change will be reported until `connected` is called again."""

    def changed(self, names: Iterable[bytes] | None) -> None:
        """These records changed; None means that any of them may have."""

    def applied(self, steps: Sequence[tuple[int, str]]) -> None:
        """These generations, with their marks, follow the last ones; `changed` was called for them."""

    def renewed(self, renewal: Renewal) -> None:
        """A renewal was answered."""


class RedisFeed:
    """Keeps a feed connection open for as long as `run` runs."""

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
        place: ServerAddress | None = None,
    ) -> None:
        self._address = address
        self._limits = limits
        self._worker = worker.encode()
        self._prefix = prefix
        self._renew_seconds = renew_seconds
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._place = place or make_place(address, limits)
        self._number = 0  # of the last renewal: makes each register entry differ from the one before
        self._asked_at = float("-inf")
        self.reconnects = 0

    async def run(self, listener: Listener) -> None:
        """Connect, listen and renew; reconnect when the connection ends."""
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
            # Tracking is on by now: every change after this reply is pushed after it.
            note = listener.note
            keys = check_keys(note)
            command = (b"EVAL", VERIFY, b"%d" % len(keys), *keys, *check_arguments(note))
            is_known, moment, group = _moment(await self._ask(connection, command))
            self._verify(listener, is_known=is_known)
            listener.connected(moment, group)
            connection.begin(moment.generation)
            connection.group = group
            retry_seconds = FIRST_RETRY_SECONDS
            while not connection.is_over.is_set():
                await self._renew(connection, listener)
                if listener.acknowledged > connection.acknowledged:
                    continue  # acknowledge at once what was just applied: a revocation waits for it
                seconds = self._renew_seconds
                if listener.is_behind:  # a replica took too long, or another process was writing the note
                    seconds = min(retry_seconds, seconds)
                    retry_seconds *= 2
                try:
                    async with asyncio.timeout(seconds):
                        await connection.news.wait()
                except TimeoutError:
                    if listener.is_behind:
                        continue
                retry_seconds = FIRST_RETRY_SECONDS
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
            connection.close()  # the address may lead to another server by now
        elif held < connection.group:
            await self._ask_where(connection)

    async def _ask_where(self, connection: _Connection) -> None:
        """Reconnect if the Sentinels name another server: missing replicas may follow that one."""
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
    """One socket: sends commands, receives replies and pushes."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._parser = hiredis.Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[Any] | None = None
        self._awaited = 0
        self._replies: list[Any] = []
        self._early: list[list[bytes]] = []  # pushes received before `begin`
        self._applied: int | None = None  # the last generation that was reported; None before `begin`
        self.host: Host | None = None  # the address that the Sentinels named
        self.group = 1
        self.without_quorum = 0  # consecutive renewals that too few servers confirmed
        self.acknowledged = 0  # the generation that the last renewal acknowledged
        self.news = asyncio.Event()  # set when there is something to acknowledge, or the connection ended
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
            self.close()  # not a Redis server

    async def ask(self, commands: Sequence[tuple[bytes, ...]]) -> Any:
        """Send commands in one write and await their replies; for one command, return its reply.

        A failure or cancellation closes the connection, since its replies could not be assigned any more.
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
        """Report pushes from here on, and those that arrived since this generation was read."""
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
            # The server lost its tracking table: only a new connection can establish the applied generation.
            self._listener.changed(None)
            self.close()
            return
        if self._applied is None:
            self._early.append(names)
        else:
            self._tell(names)

    def _tell(self, names: list[bytes]) -> None:
        """Report changed names, then generations. Expired step records are pushed again and ignored."""
        applied = self._applied or 0
        found = [match for name in names if (match := _STEP.fullmatch(name))]
        steps = sorted((int(match[1]), match[2]) for match in found if int(match[1]) > applied)
        self._listener.changed(names)
        if not steps:
            return
        if [number for number, _ in steps] != list(range(applied + 1, applied + 1 + len(steps))):
            self.close()  # one is missing: only a new connection can establish the applied generation
            return
        if any(mark is None for _, mark in steps):
            self.close()  # written by an older version without a mark, so the moment cannot be known
            return
        self._applied = steps[-1][0]
        self._listener.applied([(number, mark.decode()) for number, mark in steps])
        self.news.set()


def _moment(reply: Any) -> tuple[bool, Moment, int]:
    """Parse the reply of the check script. Raises `ConnectionError` for any other reply."""
    match reply:
        case [int() as known, _, _, _, _] if all(one is None or isinstance(one, bytes) for one in reply[1:]):
            counter, mark, history, group = reply[1:]
            size = parse_group(group)
            return known == 1, parse_moment((counter, mark, history)), 1 if size is None else size.servers
    raise ConnectionError("the reply is not a generation")
