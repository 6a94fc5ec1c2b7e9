"""The note of which package lists which digest: what is in it, what bounds it, and when it is another one."""

from __future__ import annotations

import asyncio
import shutil

from gateway.model.names import ModelId, PackageId
from gateway.resource.listed import list_package
from gateway.resource.manifest import Artifact, Storage, make_manifest

BLOBS = ["0" * 32, "1" * 32, "2" * 32]
A, B = ModelId("a/1"), ModelId("b/1")
P = PackageId("p")


def manifest(*digests, storage=Storage.SHARED_BLOB):
    artifacts = tuple(Artifact(handle=f"f{n}", md5=md5, storage=storage) for n, md5 in enumerate(digests))
    return make_manifest(artifacts)


def test_a_package_is_noted_with_its_blobs_and_with_nothing_else():
    listed = list_package(A, P, manifest(BLOBS[0], BLOBS[1], BLOBS[1]))
    assert [listed.may_list(md5) for md5 in BLOBS] == [True, True, False]
    assert not list_package(A, P, manifest(BLOBS[0], storage=Storage.PACKAGE_FILE)).may_list(BLOBS[0])


def test_the_note_of_the_same_manifest_is_the_same_in_any_order():
    assert list_package(A, P, manifest(*BLOBS)) == list_package(A, P, manifest(*reversed(BLOBS)))
    assert list_package(A, P, manifest(*BLOBS)) != list_package(A, P, manifest(*BLOBS[:2]))


def test_a_blob_costs_four_bytes():
    assert len(list_package(A, P, manifest(*BLOBS)).marks) == 4 * len(BLOBS)


def test_a_catalogue_notes_what_is_on_disk(cache):
    asyncio.run(cache.catalogue.refresh([]))
    listed = cache.catalogue.listed()
    hashed = {file.md5 for file in cache.written.values() if file.md5 is not None}
    assert [(one.model, one.package) for one in listed] == [(cache.model, cache.package)]
    assert all(listed[0].may_list(md5) for md5 in hashed)
    assert len(listed[0].marks) == 4 * len(hashed)
    asyncio.run(cache.catalogue.refresh([]))
    assert cache.catalogue.listed() is listed
    shutil.rmtree(cache.folder)
    asyncio.run(cache.catalogue.refresh([]))
    assert cache.catalogue.listed() == ()
