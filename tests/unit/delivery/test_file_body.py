"""A receipt in, ASGI messages out: by copies and by zero-copy, pinned and not, with faults in between."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from io import UnsupportedOperation

import pytest

from gateway.delivery import steps
from gateway.delivery.file_answer import Means, RefusedFile, answer_file
from gateway.delivery.file_body import Sent
from gateway.middleware.meter import Meter
from gateway.middleware.sending import send_answer
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.listings import CataloguePage
from gateway.model.verdicts import Ending

LARGE = random.Random(3).randbytes((9 << 20) + 17)
SMALL = b"small enough to be sent at once\n"


async def deliver(receipt, client, means=None):
    """As a face and what sends its answer do it; what was refused is returned and not sent."""
    answer = answer_file(receipt, means or Means())
    if isinstance(answer, RefusedFile):
        return answer
    meter = Meter(0.0)
    scope = {**client.scope, "method": receipt.admission.request.method}
    await send_answer(answer, receipt, meter, scope, client.receive, client.send)
    return Sent(ending=meter.cut, sha256=meter.sha256)


def send(receipt, client, means=None):
    return asyncio.run(deliver(receipt, client, means))


@pytest.fixture(params=[False, True], ids=["copied", "zero-copied"])
def client(request, new_client):
    return new_client(has_zero_copy=request.param)


@pytest.mark.parametrize("content", [b"", SMALL, LARGE])
@pytest.mark.parametrize("is_pinned", [True, False])
def test_a_whole_file_arrives_whole(content, is_pinned, client, blob_of):
    blob = blob_of(content)
    result = send(blob.receipt(is_pinned=is_pinned), client)
    assert result == Sent(sha256=None if is_pinned else blob.sha256)
    assert client.status == 200
    assert client.body == content
    assert client.is_complete
    assert client.headers[b"content-length"] == str(len(content)).encode()


def test_a_large_pinned_file_goes_by_zero_copy_where_it_can_and_by_copies_where_not(new_client, blob_of):
    blob = blob_of(LARGE)
    able, unable = new_client(has_zero_copy=True), new_client()
    send(blob.receipt(), able)
    send(blob.receipt(), unable)
    assert able.kinds == ["start", *["zerocopysend"] * 3]
    assert unable.kinds == ["start", *["body"] * 10]
    assert [one["more_body"] for one in able.messages[1:]] == [True, True, False]
    assert max(len(one["body"]) for one in unable.messages[1:]) == steps.READ_BYTES


def test_zero_copy_of_a_server_that_does_not_look_is_not_used(new_client, blob_of):
    client = new_client(has_zero_copy=True)
    client.scope["extensions"]["http.response.zerocopysend"] = {}
    send(blob_of(LARGE).receipt(), client)
    assert set(client.kinds) == {"start", "body"}


def test_what_is_hashed_on_the_way_is_what_is_sent(new_client, blob_of):
    client = new_client(has_zero_copy=True)
    send(blob_of(LARGE).receipt(is_pinned=False), client)
    assert set(client.kinds) == {"start", "body"}


def test_small_files_are_sent_at_once(client, blob_of):
    send(blob_of(SMALL).receipt(), client)
    assert client.kinds == ["start", "body"]


@pytest.mark.parametrize("is_pinned", [True, False])
@pytest.mark.parametrize("content", [b"", SMALL, LARGE])
def test_head_is_get_without_its_body(content, is_pinned, new_client, blob_of):
    blob = blob_of(content)
    of_get, of_head = new_client(), new_client()
    send(blob.receipt(is_pinned=is_pinned), of_get)
    result = send(blob.receipt(method="HEAD", is_pinned=is_pinned), of_head)
    assert of_head.status == of_get.status
    assert of_head.headers | {b"traceparent": b""} == of_get.headers | {b"traceparent": b""}
    assert of_head.body == b""
    assert of_head.is_complete
    assert result == Sent()


@pytest.mark.parametrize("size", [50, 100_000, len(LARGE)])
def test_a_range_is_that_part_of_the_file(size, client, blob_of):
    headers = [(b"range", b"bytes=17-%d" % (size - 2))]
    send(blob_of(LARGE[:size]).receipt(headers=headers), client)
    assert client.status == 206
    assert client.body == LARGE[17 : size - 1]
    assert client.is_complete


def test_several_ranges_go_out_in_one_body(client, blob_of):
    first, second = (5, 100), (1_000_000, 8_000_000)
    headers = [(b"range", b"bytes=%d-%d,%d-%d" % (*first, *second))]
    send(blob_of(LARGE).receipt(headers=headers), client)
    assert client.status == 206
    assert len(client.body) == int(client.headers[b"content-length"])
    boundary = client.headers[b"content-type"].rpartition(b"=")[2]
    start, one, two, end = client.body.split(b"--" + boundary)
    assert (start, end) == (b"", b"--\r\n")
    for part, (low, high) in ((one, first), (two, second)):
        head, _, content = part.partition(b"\r\n\r\n")
        assert b"Content-Range: bytes %d-%d/%d" % (low, high, len(LARGE)) in head
        assert content.removesuffix(b"\r\n") == LARGE[low : high + 1]
    if client.scope:
        assert "zerocopysend" in client.kinds


def test_not_modified_has_no_body_and_the_tag(client, blob_of):
    blob = blob_of(LARGE)
    result = send(blob.receipt(headers=[(b"if-none-match", b'"%b"' % blob.sha256.encode())]), client)
    assert result == Sent()
    assert client.status == 304
    assert client.kinds == ["start", "body"]
    assert client.body == b""
    assert client.headers[b"cache-control"] == b"private, no-cache"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ((b"if-match", b'"x"'), Reason.PRECONDITION_FAILED),
        ((b"range", b"bytes=99999999-"), Reason.RANGE_NOT_SATISFIABLE),
    ],
)
def test_another_answer_than_the_file_is_left_to_the_caller(header, reason, client, blob_of):
    result = send(blob_of(LARGE).receipt(headers=[header]), client)
    assert isinstance(result, RefusedFile)
    assert result.reason is reason
    assert client.messages == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("is_pinned", [True, False])
def test_a_file_that_changed_after_opening_is_not_begun(method, is_pinned, client, blob_of):
    blob = blob_of(SMALL)
    receipt = blob.receipt(method=method, is_pinned=is_pinned)
    blob.path.write_bytes(SMALL)
    with pytest.raises(Unavailable) as caught:
        send(receipt, client)
    assert caught.value.reason is Reason.CHANGED_ON_DISK
    assert client.messages == []


def rewriting(blob):
    def rewrite():
        with blob.path.open("r+b") as file:
            file.seek(len(LARGE) - 1)
            file.write(b"x")

    return rewrite


@pytest.mark.parametrize("has_zero_copy", [True, False])
@pytest.mark.parametrize("is_pinned", [True, False])
def test_a_file_that_changes_meanwhile_is_cut_at_the_next_step(has_zero_copy, is_pinned, new_client, blob_of):
    blob = blob_of(LARGE)
    client = new_client(has_zero_copy=has_zero_copy, at={1: rewriting(blob)})
    result = send(blob.receipt(is_pinned=is_pinned), client)
    assert result == Sent(ending=Ending.CHANGED_ON_DISK)
    assert len(client.messages) == 2
    assert not client.is_complete


def test_a_change_before_the_last_step_is_caught_however_late(new_client, blob_of):
    blob = blob_of(LARGE)
    client = new_client(has_zero_copy=True, at={2: rewriting(blob)})  # of three messages
    assert send(blob.receipt(), client).ending is Ending.CHANGED_ON_DISK
    assert len(client.body) < len(LARGE)


def test_the_end_of_several_parts_is_held_back_from_a_change(new_client, blob_of):
    blob = blob_of(LARGE)
    client = new_client(has_zero_copy=True, at={4: rewriting(blob)})  # the second part; its end is the fifth
    headers = [(b"range", b"bytes=0-99999,200000-299999")]
    assert send(blob.receipt(headers=headers), client).ending is Ending.CHANGED_ON_DISK
    assert not client.body.endswith(b"--\r\n")


def test_content_that_is_not_its_name_never_arrives_whole(new_client, blob_of):
    blob, client = blob_of(LARGE), new_client()
    result = send(blob.receipt(is_pinned=False, name="0" * 32), client)
    assert result == Sent(ending=Ending.QUARANTINED)
    assert client.status == 200
    assert not client.is_complete
    assert 0 < len(client.body) < len(LARGE)


@pytest.mark.parametrize("content", [b"", SMALL])
def test_a_small_file_that_is_not_its_name_is_not_begun(content, new_client, blob_of):
    client = new_client()
    result = send(blob_of(content).receipt(is_pinned=False, name="0" * 32), client)
    assert result == Sent(ending=Ending.QUARANTINED)
    assert client.status == 404
    assert content not in client.body or not content


def test_a_small_file_whose_pin_cannot_be_asked_is_not_begun(new_client, blob_of):
    async def fail(file, *, md5, sha256):
        raise Unavailable("redis", "silent", Reason.NO_FACTS)

    client = new_client()
    with pytest.raises(Unavailable) as caught:
        send(blob_of(SMALL).receipt(is_pinned=False), client, Means(on_hashed=fail))
    assert caught.value.reason is Reason.NO_FACTS
    assert client.messages == []


def test_a_pin_of_another_node_that_differs_holds_the_end_back(new_client, blob_of):
    async def refuse(file, *, md5, sha256):
        raise Refusal(Reason.QUARANTINED)

    client = new_client()
    result = send(blob_of(LARGE).receipt(is_pinned=False), client, Means(on_hashed=refuse))
    assert result.ending is Ending.QUARANTINED
    assert len(client.body) < len(LARGE)


@pytest.mark.parametrize("is_pinned", [True, False])
def test_a_client_that_leaves_ends_it(is_pinned, new_client, blob_of):
    blob = blob_of(LARGE)
    client = new_client()
    client._at = {2: client.leave}
    result = send(blob.receipt(is_pinned=is_pinned), client)
    assert result.ending is Ending.CLIENT_GONE
    assert len(client.body) < len(LARGE)


@pytest.mark.parametrize("has_zero_copy", [True, False])
def test_a_send_that_fails_is_a_client_that_left(has_zero_copy, new_client, blob_of):
    def fail():
        raise BrokenPipeError

    client = new_client(has_zero_copy=has_zero_copy, at={2: fail})
    assert send(blob_of(LARGE).receipt(), client).ending is Ending.CLIENT_GONE


def test_a_disk_that_fails_under_the_kernel_is_no_client_that_left(new_client, blob_of):
    def fail():
        raise OSError(errno.EIO, "input/output error")

    client = new_client(has_zero_copy=True, at={2: fail})
    assert send(blob_of(LARGE).receipt(), client) == Sent(ending=Ending.FAILED)


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.ENOMEM, errno.EBADF, errno.EOPNOTSUPP])
def test_only_a_connection_that_is_gone_is_a_client_that_left(number, client, blob_of):
    def fail():
        raise OSError(number, os.strerror(number))

    client._at = {2: fail}
    assert send(blob_of(LARGE).receipt(), client) == Sent(ending=Ending.FAILED)


class GoneError(OSError):
    """As the zero-copy extensions of some other servers are."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EPIPE, ""),
        OSError(errno.ENOTCONN, ""),
        OSError(errno.ETIMEDOUT, ""),
        OSError(errno.EHOSTUNREACH, ""),
        GoneError(),
    ],
)
def test_a_connection_that_is_gone_is_a_client_that_left(error, client, blob_of):
    def fail():
        raise error

    client._at = {2: fail}
    assert send(blob_of(LARGE).receipt(), client) == Sent(ending=Ending.CLIENT_GONE)


@pytest.mark.parametrize("ranges", [None, b"bytes=0-7999999,8500000-8999999"])
def test_where_the_kernel_cannot_send_the_file_it_is_copied(ranges, new_client, blob_of):
    def fail():
        raise UnsupportedOperation

    blob = blob_of(LARGE)
    headers = [] if ranges is None else [(b"range", ranges)]
    at = 1 if ranges is None else 2  # after the head of the first part
    client, other = new_client(has_zero_copy=True, at={at: fail}), new_client()
    assert send(blob.receipt(headers=headers), client).ending is None
    send(blob.receipt(headers=headers), other)
    assert set(client.kinds) == {"start", "body"}
    assert max(len(one["body"]) for one in client.messages[1:]) <= steps.READ_BYTES
    assert len(client.body) == len(other.body) == int(client.headers[b"content-length"])
    assert LARGE[:8_000_000] in client.body
    assert client.is_complete
    assert [one["more_body"] for one in client.messages[1:-1]] == [True] * (len(client.messages) - 2)


@pytest.mark.parametrize("header", [(b"if-match", b'"x"'), (b"range", b"bytes=99999999-")])
def test_nothing_is_said_about_a_file_that_changed(header, client, blob_of):
    blob = blob_of(SMALL)
    receipt = blob.receipt(headers=[header])
    blob.path.write_bytes(SMALL + SMALL)
    with pytest.raises(Unavailable):
        send(receipt, client)


def test_a_file_that_ends_while_the_kernel_moves_it_has_changed(new_client, blob_of):
    def fail():
        raise EOFError

    client = new_client(has_zero_copy=True, at={1: fail})
    assert send(blob_of(LARGE).receipt(), client) == Sent(ending=Ending.CHANGED_ON_DISK)
    assert client.kinds == ["start"]


def test_no_task_is_left_behind(client, blob_of):
    async def run():
        receipt = blob_of(LARGE).receipt()
        await deliver(receipt, client)
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(run()) == set()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_pinned_blob_is_handed_to_the_proxy_where_that_is_set(method, client, blob_of):
    blob = blob_of(LARGE)
    headers = [(b"range", b"bytes=0-1"), (b"x-accel-redirect", b"/etc/passwd")]
    result = send(blob.receipt(method=method, headers=headers), client, Means(accel_prefix="/_blobs"))
    assert result == Sent(ending=Ending.HANDED_OFF)
    assert client.status == 200
    assert client.kinds == ["start", "body"]
    assert client.body == b""
    redirects = [value for name, value in client.fields if name == b"x-accel-redirect"]
    assert redirects == [f"/_blobs/{blob.md5}".encode()]


def test_what_is_not_pinned_or_no_blob_is_sent_from_here(client, blob_of):
    blob, means = blob_of(SMALL), Means(accel_prefix="/_blobs")
    for how in ({"is_pinned": False}, {"is_blob": False}):
        one = type(client)(has_zero_copy=bool(client.scope))
        assert send(blob.receipt(**how), one, means).ending is None
        assert one.body == SMALL


def test_preconditions_come_before_the_handing_over(client, blob_of):
    blob, means = blob_of(SMALL), Means(accel_prefix="/_blobs")
    held = [(b"if-none-match", f'"{blob.sha256}"'.encode())]
    assert send(blob.receipt(headers=held), client, means) == Sent()
    assert client.status == 304
    assert b"x-accel-redirect" not in client.headers


def test_a_receipt_for_something_else_is_no_receipt_for_a_file(client, new_receipt):
    receipt = new_receipt(CataloguePage(models=(), after=None))
    with pytest.raises(TypeError):
        send(receipt, client)


def test_a_descriptor_is_never_read_through_its_own_position(client, blob_of):
    receipt = blob_of(LARGE).receipt()
    os.lseek(receipt.admission.found.descriptor, 1000, os.SEEK_SET)
    send(receipt, client)
    assert client.body == LARGE
    assert os.lseek(receipt.admission.found.descriptor, 0, os.SEEK_CUR) == 1000


@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_a_disk_that_fails_before_the_first_byte_is_no_defect_of_ours(content, new_client, blob_of):
    receipt, client = blob_of(content).receipt(), new_client()
    descriptor = receipt.admission.found.descriptor
    unreadable = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)
    os.dup2(unreadable, descriptor)
    os.close(unreadable)
    with pytest.raises(Unavailable) as caught:
        send(receipt, client)
    assert caught.value.reason is Reason.CACHE_UNAVAILABLE
    assert client.messages == []
