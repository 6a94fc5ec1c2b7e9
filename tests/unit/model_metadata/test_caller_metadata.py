"""The links of a large answer are made in a thread: what the HTTP tests of the engine face do not cover."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest

from gateway.engine.answers import parse_answer
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind
from gateway.model.facts import KeyKind
from gateway.model.names import KeyId, ModelId
from gateway.model.stamps import Stamp
from gateway.model.verdicts import Allowed
from gateway.model_metadata.caller_metadata import FILES_AT_ONCE, Offers

MODEL = ModelId("acme/cars/1")
STAMP = Stamp(1, ())
LONG_SECONDS = 5.0  # only a test that fails waits for it


def an_answer(files):
    listed = [
        {"fileHandle": f"f{number}", "downloadUrl": f"https://x/{number}", "md5Hash": f"{number:032x}"}
        for number in range(files)
    ]
    package = {
        "type": "external-model-package-v1",
        "packageId": "pkgA1",
        "packageManifest": {"type": "onnx-model-package-v1", "opset": 17},
        "packageFiles": listed,
    }
    metadata = {
        "type": "external-model-metadata-v1",
        "modelId": MODEL,
        "modelArchitecture": "resnet",
        "taskType": "classification",
        "modelPackages": [package],
    }
    return parse_answer(json.dumps({"modelMetadata": metadata}).encode())


class Around:
    """Everything that `Offers` calls, with immediate answers. `url` is called for each link that is made."""

    has_upstream = False

    def __init__(self, files, url):
        self.answer = an_answer(files)
        self.made = url
        self.offers = Offers(
            metadata=self,
            decisions=self,
            catalogue=self,
            origins=None,
            sealed=None,
            links=self,
            public_url="https://gw.example",
            is_relaying=True,
            minting=self,
            attestations=None,
        )

    async def weights(self, _inquiry, _not_ours):
        return SimpleNamespace(what=self.answer, is_local=False, stamp=STAMP)

    async def reach_many(self, accesses):
        facts = SimpleNamespace(stamp=STAMP, is_confirmed=True)
        return [SimpleNamespace(verdict=allowed(one), facts=facts) for one in accesses]

    async def entries(self, _model, _package, _handles):
        return {}

    async def note(self, *_):
        pass

    def url(self, _key_id, _model, _package, handle):
        self.made()
        return f"ours:{handle}"

    async def ask(self):
        access = Access(
            principal=Principal(
                kind=KeyKind.ADMIN,
                key_id=KeyId("key_000000000000"),
                key_name="",
                tenant=None,
                scopes=frozenset(),
                expires_at=None,
            ),
            action=Action.READ,
            resource=Resource(kind=ResourceKind.MODEL, model=MODEL),
        )
        inquiry = SimpleNamespace(allowed=allowed(access), key_id="key_000000000000")
        answer, _ = await self.offers.weights(inquiry, is_wrapped=False)
        body = json.loads(answer.body)
        [package] = body["modelMetadata"]["modelPackages"]
        return [file["downloadUrl"] for file in package["packageFiles"]]


def allowed(access):
    return Allowed(access=access, model=MODEL, policies=(), grant=None, stamp=STAMP)


def test_the_event_loop_goes_on_while_the_links_of_many_files_are_made():
    turned = threading.Event()
    seen = []

    def made():
        if not seen:
            loop.call_soon_threadsafe(turned.set)
        # The first link is made only after the event loop has run once since it was requested.
        seen.append((threading.get_ident(), turned.wait(0 if seen else LONG_SECONDS)))

    async def scenario():
        nonlocal loop
        loop = asyncio.get_running_loop()
        return await Around(FILES_AT_ONCE + 1, made).ask()

    loop = None
    urls = asyncio.run(scenario())
    assert urls == [f"ours:f{number}" for number in range(FILES_AT_ONCE + 1)]
    assert len(seen) == FILES_AT_ONCE + 1
    assert all(has_turned and thread != threading.get_ident() for thread, has_turned in seen)


@pytest.mark.parametrize("files", [1, FILES_AT_ONCE])
def test_for_few_files_no_thread_is_waited_for(files):
    threads = []
    around = Around(files, lambda: threads.append(threading.get_ident()))
    assert len(asyncio.run(around.ask())) == files
    assert threads == [threading.get_ident()] * files
