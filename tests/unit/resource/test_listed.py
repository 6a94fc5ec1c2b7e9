"""The index of which package lists which digest: its content, its bounds, and when it changes."""

from __future__ import annotations

import asyncio
import shutil
import sys

from gateway.model.listings import SEARCHED_BYTES
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


def test_of_many_blobs_each_is_found_and_nothing_that_lies_across_two_of_them():
    digests = [f"{number * 3_000_001 + 7:08x}" + "0" * 24 for number in range(1_000)]
    listed = list_package(A, P, manifest(*digests))
    assert len(listed.marks) > SEARCHED_BYTES
    assert all(listed.may_list(md5) for md5 in digests)
    marks = {md5[:8] for md5 in digests}
    across = {listed.marks[at : at + 4].hex() for at in range(len(listed.marks) - 4)} - marks
    assert not any(listed.may_list(mark + "0" * 24) for mark in (*across, "00000000", "ffffffff"))


def test_a_digest_is_looked_for_in_few_steps_however_many_there_are():
    """The search for a digest yields to the event loop between packages, so no package may take long."""
    steps = {}
    for count in (2_000, 20_000):
        listed = list_package(A, P, manifest(*(f"{number:08x}" + "0" * 24 for number in range(count))))
        calls = 0

        def note(_frame, event, _argument):
            nonlocal calls
            calls += event == "call"

        sys.setprofile(note)
        listed.may_list("f" * 32)
        sys.setprofile(None)
        steps[count] = calls
    assert steps[20_000] <= steps[2_000] + 5
