"""Deliver a file: from an open descriptor to the client, in steps, with constant memory.

Before every step, the last one included, the descriptor is asked whether it is still the file that
was opened: a blob that is truncated or rewritten meanwhile is cut off, so that no client holds a
complete body made of two files. A change within one step is beyond us; the read-only mount is what
stands against it. There are no validators and no ranges here: they need a pinned digest.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

from gateway.delivery.headers import delivery_headers
from gateway.model.errors import Reason, Unavailable
from gateway.model.verdicts import Ending, OpenFile

if TYPE_CHECKING:
    from starlette.types import Receive, Send

    from gateway.model.verdicts import Receipt

STEP_BYTES = 1 << 20  # what one client makes us hold; larger steps did not get faster
OCTETS = b"application/octet-stream"
INLINE_BYTES = 1 << 16  # read on the event loop: up to here a thread costs more than the read


async def send_file(
    receipt: Receipt, *, method: str, trace: bytes, receive: Receive, send: Send
) -> Ending | None:
    """Send the file of a receipt. Returns why it was cut, or None when it went out whole.

    Raises `Unavailable` when the file changed before anything was sent.
    """
    file = receipt.admission.found
    if not isinstance(file, OpenFile):
        raise TypeError("this receipt is not for a file")
    headers = delivery_headers(receipt, content_type=OCTETS, length=file.size, trace=trace)
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    if method == "HEAD" or file.size <= INLINE_BYTES:
        body = b""
        if method != "HEAD":
            body = _first_step(file, file.size + 1)
        await send(start)
        await send({"type": "http.response.body", "body": body})
        return None
    return await _stream(file, start, receive, send)


def _first_step(file: OpenFile, count: int) -> bytes:
    """Up to so many bytes. Nothing was sent yet, so what the disk cannot do is a 503."""
    try:
        step = os.pread(file.descriptor, count, 0)
        is_whole = len(step) == min(count, file.size) and is_unchanged(file)
    except OSError as error:
        why = f"{file.handle}: {errno.errorcode.get(error.errno or 0, 'unknown error')}"
        raise Unavailable("cache", why, Reason.CACHE_UNAVAILABLE) from error
    if not is_whole:
        raise Unavailable("cache", f"{file.handle} changed while it was opened", Reason.CHANGED_ON_DISK)
    return step


async def _stream(file: OpenFile, start: dict[str, object], receive: Receive, send: Send) -> Ending | None:
    loop = asyncio.get_running_loop()
    step = await loop.run_in_executor(None, _first_step, file, STEP_BYTES)
    gone = asyncio.ensure_future(_disconnected(receive))
    offset = len(step)
    try:
        await send(start)
        await send({"type": "http.response.body", "body": step, "more_body": offset < file.size})
        while offset < file.size:
            count = min(STEP_BYTES, file.size - offset)
            try:
                step = await loop.run_in_executor(None, os.pread, file.descriptor, count, offset)
                is_whole = len(step) == count and is_unchanged(file)
            except OSError:  # the disk's doing, which must not be told as the client's
                return Ending.FAILED
            if not is_whole:
                return Ending.CHANGED_ON_DISK
            if gone.done():
                return Ending.CLIENT_GONE
            offset += count
            await send({"type": "http.response.body", "body": step, "more_body": offset < file.size})
    except OSError:  # what servers raise from `send` when the connection is gone (ASGI 2.4)
        return Ending.CLIENT_GONE
    else:
        return None
    finally:
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    """Return when the client has gone: some servers swallow what is sent to nobody."""
    while (await receive())["type"] != "http.disconnect":
        pass


def is_unchanged(file: OpenFile) -> bool:
    """Whether the descriptor still is what was opened: same inode, size and times."""
    now = os.fstat(file.descriptor)
    return (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns) == file.identity
