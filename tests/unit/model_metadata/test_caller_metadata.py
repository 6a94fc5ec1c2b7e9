"""Links of a large answer are made in a thread, and what is kept: what the HTTP tests do not cover."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest

from gateway.engine.answers import parse_answer
from gateway.model.access import Access, Action, Resource, ResourceKind
from gateway.model.facts import KeyKind
from gateway.model.names import KeyId, ModelId
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import Allowed
from gateway.model_metadata.caller_metadata import FILES_AT_ONCE, MAX_REMEMBERED_QUERY_BYTES, Offers
from gateway.resource.disk_checks import SeenOnDisk
from tests import samples

MODEL = ModelId("acme/cars/1")
STAMP = Stamp(1, ())
ENTRY = SimpleNamespace(md5=None)
QUERY = b"modelId=acme/cars/1"
LONG_SECONDS = 5.0  # only a test that fails waits for it


def an_answer(files, md5="{:032x}"):
    listed = [
        {
            "fileHandle": f"f{number}",
            "downloadUrl": f"https://x/{number}",
            "md5Hash": md5 and md5.format(number),
        }
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

    def url(self, _key_id, _model, _package, handle, token_ends_at=None):
        self.made()
        return f"ours:{handle}"

    def expires_at(self, _token_ends_at=None):
        return 60

    async def ask(self):
        access = Access(
            principal=samples.principal(kind=KeyKind.ADMIN, key_id=KeyId("key_000000000000"), tenant=None),
            action=Action.READ,
            resource=Resource(kind=ResourceKind.MODEL, model=MODEL),
        )
        request = SimpleNamespace(query=b"modelId=acme/cars/1")
        inquiry = SimpleNamespace(allowed=allowed(access), key_id="key_000000000000", request=request)
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


class Local(Around):
    """The cache has all files, and no provider is asked. What its answer is made of can be changed."""

    def __init__(self, *, files=2):
        super().__init__(files, lambda: None)
        self.offers._is_relaying = False
        self.kept = self.answer
        self.expiry = 60
        self.is_in_cache = True
        self.leaf = Leaf(b"rule", b"1")

    async def weights(self, _inquiry, _not_ours):
        return SimpleNamespace(what=self.answer, is_local=True, stamp=STAMP)

    async def entries(self, _model, _package, handles):
        return dict.fromkeys(handles, ENTRY if self.is_in_cache else None)

    async def reach_many(self, accesses):
        facts = SimpleNamespace(stamp=Stamp(1, (self.leaf,)), is_confirmed=True)
        return [SimpleNamespace(verdict=allowed(one), facts=facts) for one in accesses]

    def weights_now(self, _allowed, _looks):
        return self.kept

    def expires_at(self, _token_ends_at=None):
        return self.expiry

    def give(self, who="a", query=QUERY, *, is_wrapped=False):
        inquiry = SimpleNamespace(
            allowed=about(who), key_id="key_000000000000", request=SimpleNamespace(query=query)
        )
        return asyncio.run(self.offers.weights(inquiry, is_wrapped=is_wrapped))

    def now(self, who="a", query=QUERY, *, is_wrapped=False):
        return self.offers.weights_now(
            SimpleNamespace(query=query), about(who), SeenOnDisk(), is_wrapped=is_wrapped
        )


def about(who):
    principal = samples.principal(
        key_id=KeyId(f"key_{who:0>12}"), tenant="t", is_of_platform=who == "platform"
    )
    resource = Resource(kind=ResourceKind.MODEL, model=MODEL)
    return allowed(Access(principal=principal, action=Action.DISCOVER, resource=resource))


def test_a_callers_answer_is_given_again_with_the_facts_that_it_depends_on():
    local = Local()
    given, stamp = local.give()
    again, stamp_again = local.now()
    assert again.body == given.body
    assert set(stamp.leaves) == set(stamp_again.leaves) == {local.leaf}


@pytest.mark.parametrize(
    "other", [{"who": "b"}, {"query": b"modelId=acme/latest"}, {"is_wrapped": True}], ids=str
)
def test_an_answer_is_given_again_to_the_same_question_of_the_same_caller_only(other):
    local = Local()
    local.give()
    assert local.now(**other) is None


CHANGES = {
    "what the cache says": lambda local: setattr(local, "kept", an_answer(2)),
    "the cache was changed": lambda local: setattr(local, "kept", None),
    "links expire later": lambda local: setattr(local, "expiry", 120),
    "a fact": lambda local: setattr(local.leaf, "is_current", False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_answer_is_not_given_again_after_a_change(change):
    local = Local()
    local.give()
    assert local.now() is not None
    CHANGES[change](local)
    assert local.now() is None


def test_what_the_provider_says_is_not_kept():
    local = Local()
    local.has_upstream = True
    local.offers._sealed = SimpleNamespace(keep=local.note)
    local.give()
    assert len(local.offers.memory) == 0


def test_an_answer_to_a_key_of_the_platforms_is_not_kept():
    local = Local()
    local.give("platform")
    assert len(local.offers.memory) == 0


def test_an_answer_with_a_file_that_was_not_found_is_not_kept():
    local = Local()
    local.is_in_cache = False
    local.give()
    assert len(local.offers.memory) == 0


def test_an_answer_with_a_file_whose_origin_is_recorded_is_not_kept():
    local = Local()
    local.answer = local.kept = an_answer(2, md5=None)
    local.offers._origins = SimpleNamespace(determine=lambda _model, wanted: known(wanted))
    local.give()
    assert len(local.offers.memory) == 0


async def known(wanted):
    return dict.fromkeys(wanted, True)


def test_an_answer_whose_links_were_rounded_to_two_minutes_is_not_kept():
    local = Local()
    expiries = iter([60, 120])
    local.expires_at = lambda _token_ends_at: next(expiries)
    local.give()
    assert len(local.offers.memory) == 0


def test_a_long_question_is_not_kept():
    local = Local()
    query = QUERY + b"&x=" + b"y" * MAX_REMEMBERED_QUERY_BYTES
    local.give(query=query)
    assert len(local.offers.memory) == 0
