"""Asks all Sentinels for the primary at the same time and takes the answer of the majority.

A Sentinel that does not answer, or is no Redis server, does not delay the result: it is known as soon as a
majority of all configured Sentinels agrees, or after `ANSWER_SECONDS` if a majority of those that answered
does. If none has answered by then, answers are waited for until the caller's timeout. Sentinels that did not
answer are reported.

The result decides only where to connect. A wrong one costs time, not correctness: whether a server has the
known history is checked by its marks (`redis_marks.py`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import hiredis
import msgspec

from gateway.adapters.redis_errors import SENTINEL_LOGIN, RefusedByServer
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

ANSWER_SECONDS = 0.3
GRACE_SECONDS = 0.05  # for those that answer after the majority
_NOTHING = object()

Host = tuple[str, int]


class LoginWantedError(ConnectionError):
    """A Sentinel that asks for a password. It counts as silent, but is reported as this."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The primary that the Sentinels name, and which Sentinels did not agree or answer."""

    primary: Host
    silent: tuple[Host, ...] = ()
    otherwise: tuple[Host, ...] = ()  # answered, and named another server or none


async def ask_sentinel(host: Host, *commands: Sequence[str]) -> list[Any]:
    """Send commands to one Sentinel and return the replies, errors as values. Raises `OSError` on failure."""
    reader, writer = await asyncio.open_connection(*host)
    parser = hiredis.Reader(notEnoughData=_NOTHING)
    replies: list[Any] = []
    try:
        packed = [hiredis.pack_command(tuple(one)) for one in commands]  # type: ignore[arg-type] # of any length
        writer.write(b"".join(packed))
        while len(replies) < len(commands):
            data = await reader.read(1 << 16)
            if not data:
                raise ConnectionError("it closed the connection")
            parser.feed(data)
            while (reply := parser.gets()) is not _NOTHING:
                replies.append(reply)
    except hiredis.ProtocolError as error:
        raise ConnectionError("it speaks no Redis") from error
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    if any(isinstance(one, hiredis.ReplyError) and str(one).startswith("NOAUTH") for one in replies):
        raise LoginWantedError("it asks for a password")
    return replies


async def find_primary(hosts: Sequence[Host], service: str, *, seconds: float) -> Found:
    """Return the primary that the Sentinels name. Raises `Unavailable` without an answer or a majority."""
    asked = {asyncio.create_task(_name_primary(host, service)): host for host in hosts}
    try:
        return await _majority(asked, service, seconds)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def list_servers(hosts: Sequence[Host], service: str) -> tuple[Host, ...]:
    """Return every server that any Sentinel names or lists, each once. Raises `Unavailable` if none answers.

    During a failover the Sentinels do not change their view at the same moment: the primary of one is still a
    replica to another. If servers were counted by role, there would be one too many.
    """
    asked = [asyncio.create_task(_list_servers(host, service)) for host in hosts]
    await asyncio.wait(asked, timeout=ANSWER_SECONDS)
    for task in asked:
        task.cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    listed = [one for one in answers if not isinstance(one, BaseException)]
    if not listed:
        raise Unavailable("redis", f"no sentinel answers: {_listed(hosts)}")
    return tuple(sorted({server for one in listed for server in one}))


async def _list_servers(host: Host, service: str) -> list[Host]:
    commands = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service), ("SENTINEL", "REPLICAS", service)
    named, listed = await ask_sentinel(host, *commands)
    primary = _primary_in(named)
    found: list[Host] = [] if primary is None else [primary]
    for raw in listed if isinstance(listed, list) else ():
        fields = dict(zip(raw[::2], raw[1::2], strict=False)) if isinstance(raw, list) else {}
        name, port = fields.get(b"ip", b""), fields.get(b"port", b"")
        if name and port.isdigit():
            found.append((name.decode("ascii", "replace"), int(port)))
    return found


async def _majority(asked: dict[asyncio.Task[Host | None], Host], service: str, seconds: float) -> Found:
    loop = asyncio.get_running_loop()
    began = loop.time()
    named: dict[Host, Host | None] = {}  # by Sentinel
    pending = set(asked)
    while pending:
        patience = ANSWER_SECONDS if named else max(ANSWER_SECONDS, seconds)
        left = began + patience - loop.time()
        if left <= 0:
            break
        done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None:
                named[asked[task]] = task.result()
        votes = Counter(one for one in named.values() if one is not None)
        if votes and 2 * max(votes.values()) > len(asked):
            if pending:  # give the others a moment, to report as silent only those that are
                done, _ = await asyncio.wait(pending, timeout=GRACE_SECONDS)
                named |= {asked[task]: task.result() for task in done if task.exception() is None}
            break
    votes = Counter(one for one in named.values() if one is not None)
    silent = tuple(host for host in asked.values() if host not in named)
    if not named:
        _verify_no_login_wanted(asked)
        raise Unavailable("redis", f"no sentinel answers: {_listed(asked.values())}")
    primary, count = votes.most_common(1)[0] if votes else (None, 0)
    if primary is None or 2 * count <= len(named):
        what = "know of no" if primary is None else "do not agree on the"
        raise Unavailable("redis", f"the sentinels {_listed(named)} {what} primary of {service}")
    otherwise = tuple(host for host, one in named.items() if one != primary)
    return Found(primary=primary, silent=silent, otherwise=otherwise)


def _verify_no_login_wanted(asked: dict[asyncio.Task[Host | None], Host]) -> None:
    for task, host in asked.items():
        if task.done() and not task.cancelled() and isinstance(task.exception(), LoginWantedError):
            raise RefusedByServer("redis", f"{_listed([host])} {SENTINEL_LOGIN}")


async def _name_primary(host: Host, service: str) -> Host | None:
    [reply] = await ask_sentinel(host, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service))
    return _primary_in(reply)


def _primary_in(reply: Any) -> Host | None:
    match reply:
        case [bytes() as name, bytes() as port] if port.isdigit():
            return name.decode("ascii", "replace"), int(port)
        case None:
            return None
    raise ConnectionError("it is no sentinel")


def _listed(hosts: Any) -> str:
    return ", ".join(f"{host}:{port}" for host, port in hosts)
