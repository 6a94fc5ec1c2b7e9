"""The note of which package lists which digest: what is in it, what bounds it, and when it is another one."""

from __future__ import annotations

import asyncio
import shutil

from gateway.model.names import ModelId, PackageId
from gateway.resource.listed import Listed
from gateway.resource.manifest import Artifact, Manifest, Storage

BLOBS = ["0" * 32, "1" * 32, "2" * 32]
A, B = ModelId("a/1"), ModelId("b/1")
P = PackageId("p")


def manifest(*digests, storage=Storage.SHARED_BLOB):
    artifacts = tuple(Artifact(handle=f"f{n}", md5=md5, storage=storage) for n, md5 in enumerate(digests))
    return Manifest(version=4, canonical_model_id=None, cache_model_id=None, artifacts=artifacts)


def noted(*models, former=(), room=1000):
    listed = Listed(former, room=room)
    for model, found in models:
        listed.add(model, P, found)
    return listed.packages(former)


def test_a_package_is_noted_with_its_blobs_and_with_nothing_else():
    [one] = noted((A, manifest(BLOBS[0], BLOBS[1], BLOBS[1])))
    assert one.digests == {BLOBS[0], BLOBS[1]}
    [one] = noted((A, manifest(BLOBS[0], storage=Storage.PACKAGE_FILE)))
    assert one.digests == frozenset()


def test_packages_come_by_model_whatever_order_they_were_found_in():
    assert [one.model for one in noted((B, manifest()), (A, manifest()))] == [A, B]


def test_beyond_the_bound_a_package_is_noted_as_unknown():
    notes = noted((A, manifest(*BLOBS)), (B, manifest(*BLOBS)), room=3)
    assert [one.digests for one in notes] == [frozenset(BLOBS), None]


def test_a_note_of_what_did_not_change_is_the_same_object():
    former = noted((A, manifest(*BLOBS)), (B, manifest()))
    assert noted((A, manifest(*BLOBS)), (B, manifest()), former=former) is former


def test_a_note_of_what_changed_is_another_one_and_keeps_the_rest():
    former = noted((A, manifest(*BLOBS)), (B, manifest()))
    later = noted((A, manifest(*BLOBS)), (B, manifest(BLOBS[0])), former=former)
    assert later is not former
    assert later[0] is former[0]
    assert later[1].digests == {BLOBS[0]}
    assert noted((A, manifest(*BLOBS)), former=former) == former[:1]


def test_a_catalogue_notes_what_is_on_disk(cache):
    asyncio.run(cache.catalogue.refresh([]))
    listed = cache.catalogue.listed()
    hashed = {file.md5 for file in cache.written.values() if file.md5 is not None}
    assert [(one.model, one.package, one.digests) for one in listed] == [(cache.model, cache.package, hashed)]
    asyncio.run(cache.catalogue.refresh([]))
    assert cache.catalogue.listed() is listed
    shutil.rmtree(cache.folder)
    asyncio.run(cache.catalogue.refresh([]))
    assert cache.catalogue.listed() == ()
