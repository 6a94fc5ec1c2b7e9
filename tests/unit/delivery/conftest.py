"""Fixtures: an admitted file on a real disk, and an ASGI server that keeps what it is sent."""

from __future__ import annotations

import asyncio
import os
from hashlib import md5, sha256

import pytest

from gateway.delivery.steps import ZeroCopied
from gateway.model.extensions import LOOKS, ZERO_COPY
from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId
from gateway.model.verdicts import OpenFile, Receipt
from tests import samples

TRACE = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"


class Blob:
    """A file in a temporary folder, and the receipt for a request of it."""

    def __init__(self, path, content):
        self.path = path
        self.content = content
        path.write_bytes(content)
        self.md5 = md5(content, usedforsecurity=False).hexdigest()
        self.sha256 = sha256(content).hexdigest()
        self.descriptors = []

    def opened(self, *, is_pinned=True, name=None, is_blob=True):
        """Open it, as the catalogue does. `name` is the MD5 by which it is named."""
        descriptor = os.open(self.path, os.O_RDONLY)
        self.descriptors.append(descriptor)
        found = os.fstat(descriptor)
        return OpenFile(
            descriptor=descriptor,
            size=found.st_size,
            identity=(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
            model=ModelId("acme/cars/1"),
            package=PackageId("pkgA1"),
            handle=FileHandle("weights.onnx"),
            md5=Md5(name or self.md5) if is_blob else None,
            sha256=self.sha256 if is_pinned else None,
        )

    def receipt(self, *, method="GET", headers=(), **how):
        """The receipt of a caller that may read it."""
        return receipt_for(self.opened(**how), method=method, headers=headers)


def receipt_for(found, *, method="GET", headers=()):
    principal = samples.principal(key_id=KeyId("key_000000000000"), tenant=None)
    request = samples.wire_request(method=method, headers=tuple(headers), route="/")
    admission = samples.admission(principal, request=request, found=found)
    return Receipt(record_id="r" * 36, admission=admission, on_close=lambda outcome: None)


@pytest.fixture(autouse=True)
def _steps_are_short(monkeypatch):
    """Smaller steps, so that a file of some megabytes is several messages."""
    monkeypatch.setattr(ZeroCopied, "step_bytes", 4 << 20)


class Client:
    """The server's side of ASGI: keeps messages, and calls `at[n]` at the n-th body message."""

    def __init__(self, *, has_zero_copy=False, at=None):
        self.messages = []
        self.scope = {"extensions": {ZERO_COPY: {LOOKS: True}}} if has_zero_copy else {}
        self._at = at or {}
        self._bodies = 0
        self._gone = asyncio.Event()

    async def receive(self):
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if message["type"] != "http.response.start":
            self._bodies += 1
            action = self._at.get(self._bodies)
            if action is not None:
                action()
        if message["type"] == ZERO_COPY:
            # Reads what the kernel would send, when it would: a descriptor is valid until `send` returns.
            message = message | {"body": os.pread(message["file"], message["count"], message["offset"])}
        self.messages.append(message)

    def leave(self):
        self._gone.set()

    @property
    def kinds(self):
        return [message["type"].rpartition(".")[2] for message in self.messages]

    @property
    def status(self):
        return self.messages[0]["status"]

    @property
    def fields(self):
        return self.messages[0]["headers"]

    @property
    def headers(self):
        return dict(self.fields)

    @property
    def body(self):
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def is_complete(self):
        return bool(self.messages[1:]) and not self.messages[-1].get("more_body", False)


@pytest.fixture
def blob_of(tmp_path):
    """Make a file with this content; its descriptors are closed after the test."""
    made = []

    def make(content):
        blob = Blob(tmp_path / f"blob{len(made)}", content)
        made.append(blob)
        return blob

    yield make
    for blob in made:
        for descriptor in blob.descriptors:
            os.close(descriptor)


@pytest.fixture
def trace():
    return TRACE


@pytest.fixture
def new_client():
    return Client


@pytest.fixture
def new_receipt():
    return receipt_for
