"""Sealed URLs: found for the key, model and file that they were kept for, and unreadable for all others."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId
from gateway.model_metadata import sealed_urls
from gateway.model_metadata.sealed_urls import ProviderFile, SealedUrls

KEY, OTHER_KEY = KeyId("key_0123456789ab"), KeyId("key_0123456789ac")
MODEL, FILE = ModelId("acme/cars/1"), (PackageId("pkgA1"), FileHandle("weights.onnx"))
PLACE = ProviderFile(url="https://storage.example/w?X-Goog-Signature=5ecre7", md5=Md5("0" * 32))
NEW, OLD = b"n" * 32, b"o" * 32


class Store:
    """The two commands that are used, over a dict."""

    def __init__(self):
        self.values, self.seconds = {}, None
        self.written = 0
        self.time = 1000.0

    def now(self):
        return self.time

    async def put_for(self, values, seconds):
        self.values |= values
        self.seconds = seconds
        self.written += len(values)

    async def read(self, names):
        return 0, [self.values.get(name) for name in names]


@pytest.fixture
def store():
    return Store()


def kept(store, *keys, place=PLACE):
    sealed = SealedUrls(store, keys or (NEW,), seconds=60.0, clock=store)
    asyncio.run(sealed.keep(KEY, MODEL, {FILE: place}))
    return sealed


def found(sealed, key_id=KEY, model=MODEL, file=FILE):
    return asyncio.run(sealed.find(key_id, model, file))


@pytest.mark.parametrize("md5", [None, Md5("f" * 32)])
def test_what_was_kept_is_found(store, md5):
    for url in ("https://storage.example/a b?c=%20", None):
        place = ProviderFile(url=url, md5=md5)
        assert found(kept(store, place=place)) == place


def test_a_page_of_many_files_is_kept_in_turns(store, monkeypatch):
    monkeypatch.setattr(sealed_urls, "FILES_PER_TURN", 10)
    files = {(PackageId("pkgA1"), FileHandle(f"f{number}")): PLACE for number in range(25)}
    sizes, put = [], store.put_for

    async def put_for(values, seconds):
        sizes.append(len(values))
        await put(values, seconds)

    store.put_for = put_for
    sealed = SealedUrls(store, (NEW,), seconds=60.0, clock=store)
    asyncio.run(sealed.keep(KEY, MODEL, files))
    assert sizes == [10, 10, 5]
    assert all(found(sealed, file=file) == PLACE for file in files)


def test_it_stays_for_the_whole_life_of_a_link_that_is_made_before_it_is_written_anew(store):
    for _ in range(4):
        kept(store)
        store.time += 10.0
    assert store.written == 2  # at the first and the last of these
    assert store.seconds == 60.0 + 30.0


def test_what_was_told_last_is_written_at_once(store):
    for place in (PLACE, ProviderFile(url=None, md5=PLACE.md5), ProviderFile(url=None, md5=None), PLACE):
        assert found(kept(store, place=place)) == place
    assert store.written == 4


def test_nothing_is_found_for_another_key_model_or_file(store):
    sealed = kept(store)
    others = [
        (OTHER_KEY, MODEL, FILE),
        (KEY, ModelId("acme/cars/2"), FILE),
        (KEY, MODEL, (PackageId("pkgA2"), FILE[1])),
        (KEY, MODEL, (FILE[0], FileHandle("weights.onnx2"))),
    ]
    assert [found(sealed, *other) for other in others] == [None] * 4


def test_parts_cannot_be_shifted_into_each_other(store):
    """`a/b` and `c` is not `a` and `b/c`: each component is hashed with its length."""
    sealed = kept(store)
    asyncio.run(sealed.keep(KEY, ModelId("a"), {(PackageId("b"), FileHandle("cd")): PLACE}))
    names = [
        (model, (PackageId(package), FileHandle(handle)))
        for model, package, handle in product(("a", "ab", "abc"), ("b", "bc", "c"), ("cd", "d"))
    ]
    hits = [one for one in names if found(sealed, KEY, ModelId(one[0]), one[1]) is not None]
    assert hits == [("a", ("b", "cd"))]


def test_nothing_of_it_lies_there_in_the_open(store):
    kept(store)
    [(name, value)] = store.values.items()
    for text in (b"5ecre7", b"storage", b"acme", b"weights", KEY.encode()):
        assert text not in name
        assert text not in value


def test_two_seals_of_one_url_differ(store):
    kept(store)
    first = dict(store.values)
    store.time += 30.0
    kept(store)
    assert first.keys() == store.values.keys()
    assert first != store.values


def test_what_was_moved_or_changed_is_not_found(store):
    sealed = kept(store)
    asyncio.run(sealed.keep(OTHER_KEY, MODEL, {FILE: ProviderFile(url="https://x.example/", md5=None)}))
    mine, theirs = store.values
    store.values[mine], store.values[theirs] = store.values[theirs], store.values[mine]
    assert found(sealed) is None
    for broken in (b"", b"x", store.values[mine][:-1], store.values[mine] + b"x"):
        store.values[mine] = broken
        assert found(sealed) is None


def test_what_the_former_link_key_sealed_is_found_while_it_verifies(store):
    kept(store, OLD)
    assert found(SealedUrls(store, (NEW, OLD), seconds=60.0, clock=store)) == PLACE
    assert found(SealedUrls(store, (NEW,), seconds=60.0, clock=store)) is None


def test_no_url_is_printed():
    assert "5ecre7" not in repr(PLACE)
