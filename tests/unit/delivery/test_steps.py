"""The steps of a body, and when a step must not be sent."""

from __future__ import annotations

import asyncio
import os

import pytest

from gateway.delivery.steps import INLINE_BYTES, Copied, Hashed, ZeroCopied, read_exactly, steps_of
from gateway.delivery.unchanged import CutError
from gateway.model.answers import Span
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.verdicts import Ending

CONTENT = bytes(range(256)) * 1024  # 256 KiB
WHOLE = Span(offset=0, count=len(CONTENT))


def fetched(source, step, *, is_last=False):
    return asyncio.run(source.fetch(step, is_last=is_last))


def cut_of(source, step, *, is_last=False):
    with pytest.raises(CutError) as caught:
        fetched(source, step, is_last=is_last)
    return caught.value.ending


async def accept(file, *, md5, sha256):
    pass


def test_pieces_are_cut_into_steps_and_only_the_very_last_is_the_last():
    pieces = (b"head", Span(offset=10, count=25), b"tail")
    assert list(steps_of(pieces, 10)) == [
        (b"head", False),
        (Span(offset=10, count=10), False),
        (Span(offset=20, count=10), False),
        (Span(offset=30, count=5), False),
        (b"tail", True),
    ]
    assert list(steps_of((Span(offset=0, count=20),), 10))[-1] == (Span(offset=10, count=10), True)


@pytest.mark.parametrize("count", [1, INLINE_BYTES, INLINE_BYTES + 1, len(CONTENT)])
def test_a_copied_step_is_the_bytes_of_the_file(count, blob_of):
    message = fetched(Copied(blob_of(CONTENT).opened()), Span(offset=0, count=count))
    assert message == {"type": "http.response.body", "body": CONTENT[:count]}


def test_a_large_step_is_handed_to_the_kernel_and_a_small_one_is_not(blob_of):
    file = blob_of(CONTENT).opened()
    source = ZeroCopied(file)
    message = fetched(source, Span(offset=7, count=INLINE_BYTES + 1))
    verify = message.pop("cachegate.verify_unchanged")
    assert message == {
        "type": "http.response.zerocopysend",
        "file": file.descriptor,
        "offset": 7,
        "count": INLINE_BYTES + 1,
    }
    verify()
    assert fetched(source, Span(offset=7, count=3))["body"] == CONTENT[7:10]
    assert fetched(source, b"between")["body"] == b"between"


@pytest.mark.parametrize("kind", [Copied, ZeroCopied, lambda file: Hashed(file, accept)])
@pytest.mark.parametrize("step", [b"closing", Span(offset=0, count=10), WHOLE])
def test_no_step_is_handed_out_of_a_file_that_changed(kind, step, blob_of):
    blob = blob_of(CONTENT)
    source = kind(blob.opened())
    with blob.path.open("r+b") as file:
        file.write(b"x")
    assert cut_of(source, step) is Ending.CHANGED_ON_DISK


def test_the_look_that_goes_with_a_large_step_sees_a_change_after_it_was_handed_out(blob_of):
    blob = blob_of(CONTENT)
    message = fetched(ZeroCopied(blob.opened()), WHOLE)
    os.utime(blob.path, ns=(1, 1))
    with pytest.raises(CutError) as caught:
        message["cachegate.verify_unchanged"]()
    assert caught.value.ending is Ending.CHANGED_ON_DISK


def test_a_file_that_ends_early_is_not_what_was_opened(blob_of):
    blob = blob_of(CONTENT)
    file = blob.opened()
    os.truncate(blob.path, 100)
    with pytest.raises(CutError) as caught:
        read_exactly(file, Span(offset=50, count=100))
    assert caught.value.ending is Ending.CHANGED_ON_DISK


def test_what_cannot_be_read_is_a_failure_and_no_change(blob_of):
    blob = blob_of(CONTENT)
    file = blob.opened()
    with pytest.raises(CutError) as caught:
        read_exactly(file, Span(offset=-1, count=1))  # an error of the system call
    assert (caught.value.ending, caught.value.reason) == (Ending.FAILED, Reason.CACHE_UNAVAILABLE)


def test_the_last_step_of_a_hashed_file_comes_with_both_its_digests(blob_of):
    blob = blob_of(CONTENT)
    told = []

    async def on_hashed(file, *, md5, sha256):
        told.append((file, md5, sha256))

    file = blob.opened(is_pinned=False)
    source = Hashed(file, on_hashed)
    half = len(CONTENT) // 2

    async def send():
        await source.fetch(Span(offset=0, count=half), is_last=False)
        assert not told
        assert source.sha256 is None
        await source.fetch(Span(offset=half, count=half), is_last=True)

    asyncio.run(send())
    assert told == [(file, blob.md5, blob.sha256)]
    assert source.sha256 == blob.sha256


def test_content_that_is_not_its_name_is_told_and_held_back(blob_of):
    blob = blob_of(CONTENT)
    told = []

    async def on_hashed(file, *, md5, sha256):
        told.append(md5)

    source = Hashed(blob.opened(is_pinned=False, name="0" * 32), on_hashed)
    assert cut_of(source, WHOLE, is_last=True) is Ending.QUARANTINED
    assert told == [blob.md5]
    assert source.sha256 is None


@pytest.mark.parametrize(
    ("failure", "ending"),
    [
        (Refusal(Reason.QUARANTINED), Ending.QUARANTINED),
        (Unavailable("redis", "silent", Reason.NO_FACTS), Ending.UNDECIDED),
    ],
)
def test_a_pin_that_does_not_agree_or_cannot_be_asked_holds_it_back(failure, ending, blob_of):
    async def refuse(file, *, md5, sha256):
        raise failure

    blob = blob_of(CONTENT)
    assert cut_of(Hashed(blob.opened(is_pinned=False), refuse), WHOLE, is_last=True) is ending


def test_a_file_that_changes_while_its_pin_is_agreed_on_is_held_back(blob_of):
    blob = blob_of(CONTENT)

    async def change(file, *, md5, sha256):
        with blob.path.open("r+b") as other:
            other.write(b"x")

    source = Hashed(blob.opened(is_pinned=False), change)
    assert cut_of(source, WHOLE, is_last=True) is Ending.CHANGED_ON_DISK


def test_a_package_file_has_no_name_to_agree_with(blob_of):
    blob = blob_of(CONTENT)
    source = Hashed(blob.opened(is_pinned=False, is_blob=False), accept)
    assert fetched(source, WHOLE, is_last=True)["body"] == CONTENT
    assert source.sha256 == blob.sha256
