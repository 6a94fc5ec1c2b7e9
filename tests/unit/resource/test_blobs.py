"""List and open the blobs below `shared-blobs` by name."""

from __future__ import annotations

import os

import pytest

from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.pins import identity_of
from gateway.resource.blobs import blobs_below, open_blob


def test_blobs_come_by_name_with_their_identity(cache):
    found = dict(blobs_below(cache.root))
    assert sorted(found) == sorted(file.md5 for file in cache.written.values() if file.md5)
    for md5, identity in found.items():
        assert identity == identity_of((cache.blobs / md5).stat())


def test_locks_unfinished_downloads_and_links_are_none(cache, secret):
    before = sorted(blobs_below(cache.root))
    (cache.blobs / f".{'a' * 32}.lock").touch()
    (cache.blobs / f"{'a' * 32}.7b1ff8a2").touch()
    (cache.blobs / ("b" * 32)).symlink_to(secret)
    (cache.blobs / ("c" * 32)).mkdir()
    assert sorted(blobs_below(cache.root)) == before


def test_a_blob_is_opened_and_a_link_in_its_place_is_not(cache, secret):
    place = cache.blob_of("weights.onnx")
    descriptor = open_blob(cache.root, place.name)
    assert os.pread(descriptor, 100, 0) == b"weights of cars"
    os.close(descriptor)
    place.unlink()
    assert open_blob(cache.root, place.name) is None
    place.symlink_to(secret)
    with pytest.raises(Refusal) as refusal:
        open_blob(cache.root, place.name)
    assert refusal.value.reason is Reason.UNSERVABLE


def test_a_root_without_blobs_has_none(tmp_path):
    assert list(blobs_below(tmp_path)) == []
    assert open_blob(tmp_path, "a" * 32) is None


def test_a_root_that_is_missing_is_no_root_without_blobs(tmp_path):
    with pytest.raises(Unavailable):
        list(blobs_below(tmp_path / "missing"))
    with pytest.raises(Unavailable):
        open_blob(tmp_path / "missing", "a" * 32)
