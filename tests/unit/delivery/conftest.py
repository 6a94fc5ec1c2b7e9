"""A real file behind a real receipt, and the two ends of an ASGI server that writes down what it gets."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

import pytest

from gateway.model.access import Access, Action, Principal, Resource, ResourceKind, WireRequest
from gateway.model.facts import KeyKind, Stamp
from gateway.model.names import FileHandle, KeyId, ModelId, PackageId, TenantId
from gateway.model.verdicts import Admission, Allowed, Identity, OpenFile, Receipt

PRINCIPAL = Principal(
    kind=KeyKind.TENANT,
    key_id=KeyId("key_abcdefghijkl"),
    key_name="",
    tenant=TenantId("acme"),
    scopes=frozenset(),
    expires_at=None,
)
RECORD = "018f3c1e-7a5b-7c21-9d0e-112233445566"


@dataclass
class Server:
    """What an app sends to: keeps the messages, and lets a test act before each."""

    messages: list = field(default_factory=list)
    before: dict = field(default_factory=dict)  # number of a message: what happens before it is taken
    is_gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, message):
        act = self.before.get(len(self.messages))
        if act:
            act()
        self.messages.append(message)
        await asyncio.sleep(0)

    async def receive(self):
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    @property
    def headers(self):
        return dict(self.messages[0]["headers"])

    @property
    def body(self):
        return b"".join(one["body"] for one in self.messages[1:])


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def receipt_for():
    def make(found):
        resource = Resource(kind=ResourceKind.SELF)
        access = Access(principal=PRINCIPAL, action=Action.READ, resource=resource)
        request = WireRequest(
            method="GET",
            raw_path=b"/",
            query=b"",
            headers=(),
            client="",
            route="",
            trace_id=None,
            received_at=0.0,
        )
        stamp = Stamp(1, ())
        allowed = Allowed(access=access, model=None, policies=(), grant=None, stamp=stamp)
        admission = Admission(request=request, allowed=allowed, found=found, stamp=stamp, key_stamp=stamp)
        return Receipt(record_id=RECORD, admission=admission, on_close=lambda outcome: None)

    return make


@pytest.fixture
def identity_receipt(receipt_for):
    return receipt_for(Identity(principal=PRINCIPAL))


@pytest.fixture
def file_receipt(tmp_path, receipt_for):
    """A receipt for a file with this content; it lies in `tmp_path / "blob"`."""
    opened = []

    def make(content):
        path = tmp_path / "blob"
        path.write_bytes(content)
        descriptor = os.open(path, os.O_RDONLY)
        opened.append(descriptor)
        found = os.fstat(descriptor)
        return receipt_for(
            OpenFile(
                descriptor=descriptor,
                size=found.st_size,
                identity=(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
                model=ModelId("acme/cars/1"),
                package=PackageId("pkgA1"),
                handle=FileHandle("weights.onnx"),
                md5=None,
            )
        )

    yield make
    for descriptor in opened:
        os.close(descriptor)
