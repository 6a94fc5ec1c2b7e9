"""A file goes out whole and as it was opened, or it is cut, and delivery says why."""

from __future__ import annotations

import asyncio
import os

import pytest

from gateway.delivery.file import INLINE_BYTES, STEP_BYTES, send_file
from gateway.model.errors import Reason, Unavailable
from gateway.model.verdicts import Ending

SIZES = (0, 1, INLINE_BYTES, INLINE_BYTES + 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES)


def content_of(size):
    return bytes(range(251)) * (size // 251) + bytes(size % 251)


def deliver(receipt, server, method="GET"):
    return asyncio.run(
        send_file(receipt, method=method, trace=b"trace", receive=server.receive, send=server.send)
    )


@pytest.mark.parametrize("size", SIZES)
def test_a_file_goes_out_whole_whatever_its_size(size, file_receipt, server):
    content = content_of(size)
    assert deliver(file_receipt(content), server) is None
    assert server.body == content
    assert server.headers[b"content-length"] == b"%d" % size
    more = [message.get("more_body", False) for message in server.messages[1:]]
    assert more == [True] * (len(more) - 1) + [False]
    assert max(len(message["body"]) for message in server.messages[1:]) <= STEP_BYTES


@pytest.mark.parametrize("size", SIZES)
def test_head_gets_the_headers_of_get_and_no_body(size, file_receipt, server):
    receipt = file_receipt(content_of(size))
    assert deliver(receipt, server, "HEAD") is None
    assert server.body == b""
    assert server.headers[b"content-length"] == b"%d" % size
    assert len(server.messages) == 2


@pytest.mark.parametrize("size", [100, 3 * STEP_BYTES])
@pytest.mark.parametrize("change", ["truncated", "grown", "rewritten"])
def test_a_file_that_changed_before_the_first_byte_is_not_sent(size, change, tmp_path, file_receipt, server):
    receipt, path = file_receipt(content_of(size)), tmp_path / "blob"
    if change == "truncated":
        os.truncate(path, size - 1)
    elif change == "grown":
        os.truncate(path, size + 1)
    else:
        path.write_bytes(content_of(size)[::-1])
    with pytest.raises(Unavailable) as failure:
        deliver(receipt, server)
    assert failure.value.reason is Reason.CHANGED_ON_DISK
    assert server.messages == []


@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_file_that_changes_between_two_steps_is_cut_there(before, tmp_path, file_receipt, server):
    content, path = content_of(4 * STEP_BYTES), tmp_path / "blob"

    def rewrite():
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"!")

    receipt = file_receipt(content)
    server.before[before] = rewrite
    assert deliver(receipt, server) is Ending.CHANGED_ON_DISK
    assert server.messages[-1]["more_body"] is True
    assert content.startswith(server.body)
    # The step that was under way when it changed may still go out; none that was read after it does.
    assert len(server.body) == before * STEP_BYTES


def test_a_file_that_cannot_be_read_any_more_is_not_the_clients_doing(file_receipt, server):
    receipt = file_receipt(content_of(3 * STEP_BYTES))
    descriptor = receipt.admission.found.descriptor

    def break_disk():
        unreadable = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)
        os.dup2(unreadable, descriptor)
        os.close(unreadable)

    server.before[1] = break_disk
    assert deliver(receipt, server) is Ending.FAILED
    assert len(server.body) == STEP_BYTES


@pytest.mark.parametrize("size", [100, 3 * STEP_BYTES])
def test_a_disk_that_fails_before_the_first_byte_is_no_defect_of_ours(size, file_receipt, server):
    receipt = file_receipt(content_of(size))
    descriptor = receipt.admission.found.descriptor
    unreadable = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)
    os.dup2(unreadable, descriptor)
    os.close(unreadable)
    with pytest.raises(Unavailable) as failure:
        deliver(receipt, server)
    assert failure.value.reason is Reason.CACHE_UNAVAILABLE
    assert server.messages == []


def test_a_client_that_has_gone_gets_nothing_more(file_receipt, server):
    async def leave_early():
        server.before[2] = server.is_gone.set
        receipt = file_receipt(content_of(8 * STEP_BYTES))
        return await send_file(receipt, method="GET", trace=b"", receive=server.receive, send=server.send)

    assert asyncio.run(leave_early()) is Ending.CLIENT_GONE
    assert len(server.body) < 4 * STEP_BYTES


def test_a_server_that_says_that_nobody_is_there_is_believed(file_receipt, server):
    def fail():
        raise BrokenPipeError

    server.before[2] = fail
    assert deliver(file_receipt(content_of(4 * STEP_BYTES)), server) is Ending.CLIENT_GONE


def test_nothing_but_a_file_is_delivered_here(identity_receipt, server):
    with pytest.raises(TypeError):
        deliver(identity_receipt, server)
    assert server.messages == []
