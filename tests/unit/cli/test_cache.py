"""`cachegate cache`: hashing ahead of time, what is pinned, and releasing from quarantine."""

from __future__ import annotations

import os
import struct
from hashlib import md5, sha256
from mmap import mmap

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.model.errors import Conflict
from gateway.model.pins import identity_of
from gateway.operations.cache.verify import verify_cache
from gateway.pinning.ledger import PinLedger
from gateway.pinning.measuring import Measurer
from gateway.terminal.progress import Bar

SHARED = b"weights that two tenants loaded\n" * 1000


def name_of(content):
    return md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def installation(installation_here):
    return installation_here


@pytest.fixture
def site(installation):
    models = [
        SampleModel(
            model_id="acme/cars/1",
            packages={"p1": {"w.onnx": SHARED, "own.txt": b"own", "notes.txt": b"notes"}},
            unhashed=frozenset({"notes.txt"}),
        ),
        SampleModel(model_id="beta/cars/1", packages={"p1": {"w.onnx": SHARED}}),
    ]
    write_sample_cache(installation.cache_root, models)
    return installation


def spoil(site, content):
    with (site.cache_root / "shared-blobs" / name_of(content)).open("r+b") as file:
        file.write(b"W")


def test_everything_is_hashed_and_every_blob_pinned(site):
    found = site.json("cache", "verify")
    assert found["good"]
    assert (found["blobs"], found["package_files"], found["pinned"]) == (2, 1, 2)
    assert (found["hashed"], found["hashed_bytes"]) == (3, len(SHARED) + 8)
    assert (found["unchanged"], found["bytes"]) == (0, len(SHARED) + 8)


def test_a_second_run_reads_only_what_changed(site):
    site.json("cache", "verify")
    os.utime(site.cache_root / "shared-blobs" / name_of(b"own"))
    found = site.json("cache", "verify", "--jobs", "2")
    assert (found["hashed"], found["unchanged"], found["pinned"]) == (1, 2, 0)
    assert found["hashed_bytes"] == 3


def test_the_status_says_what_is_pinned_and_whose_links_cross(site):
    for tenant in ("acme", "beta"):
        site.run("tenants", "create", tenant)
        site.run("models", "own", tenant, f"{tenant}/*")
    (site.cache_root / "shared-blobs" / name_of(b"nobody's")).write_bytes(b"nobody's")
    before = site.json("cache", "status")
    assert before["blobs"]["unpinned"]["count"] == 3
    assert before["blobs"]["unlinked"] == {"count": 1, "bytes": 8}
    assert (before["models"], before["packages"], before["links"]) == (2, 2, 3)
    assert before["package_files"] == {"count": 1, "bytes": 5}
    [crossing] = before["crossing_links"]
    assert (crossing["md5"], crossing["owners"]) == (name_of(SHARED), ["acme", "beta"])
    assert crossing["models"] == ["acme/cars/1", "beta/cars/1"]
    site.json("cache", "verify")
    assert site.json("cache", "status")["blobs"]["pinned"]["count"] == 3


def test_a_bad_blob_is_quarantined_recorded_and_said(site):
    site.json("cache", "verify")
    spoil(site, SHARED)
    found = site.json("cache", "verify", status=1)
    assert found["quarantined"] == [name_of(SHARED)]
    [held] = site.json("cache", "status")["quarantined"]
    assert (held["md5"], held["cause"]) == (name_of(SHARED), "not-its-name")
    assert held["pinned_sha256"] == sha256(SHARED).hexdigest()
    [record] = [one for one in site.records() if one.get("action") == "cache.quarantine"]
    [event] = [one for one in site.records() if one["kind"] == "quarantine"]
    assert (event["md5"], event["source"]) == (name_of(SHARED), record["actor"])
    assert f"found sha256:{event['found']}" in record["subject"]
    assert record["subject"][:2] == [name_of(SHARED), "not-its-name"]
    site.verify_audit()


def test_a_release_holds_once_the_blob_is_repaired(site):
    spoil(site, SHARED)
    site.json("cache", "verify", status=1)
    site.run("cache", "release", name_of(SHARED))
    site.json("cache", "verify", status=1)
    (site.cache_root / "shared-blobs" / name_of(SHARED)).write_bytes(SHARED)
    site.json("cache", "verify", status=1)  # only an operator ends a quarantine
    released = site.json("cache", "release", name_of(SHARED))
    assert released["changed"]
    assert site.json("cache", "verify")["good"]
    actions = [one["action"] for one in site.records() if one.get("action", "").startswith("cache.")]
    assert actions.count("cache.release") == 2


@pytest.mark.parametrize(("name", "status"), [("no-digest", 2), ("ab" * 16, 1)])
def test_what_is_no_blob_or_has_no_pin_cannot_be_released(site, name, status):
    assert site.run("cache", "release", name, status=status).stderr


def test_people_get_sentences_and_tables(site):
    said = site.run("cache", "verify")
    assert "2 blobs and 1 package files" in said.stderr
    assert "pinned" in site.run("cache", "status").stdout


def test_an_empty_cache_is_good(installation):
    found = installation.json("cache", "verify")
    assert (found["good"], found["blobs"], found["bytes_per_second"]) == (True, 0, 0)


def test_content_that_changed_and_left_its_times_is_found_when_all_is_hashed_again(site):
    place = site.cache_root / "shared-blobs" / name_of(SHARED)
    with place.open("r+b") as file, mmap(file.fileno(), 0) as mapped:
        mapped[:1] = b"w"  # the times change here, and not at the next store to the page
        site.json("cache", "verify")
        before = identity_of(place.stat())
        mapped[:4] = b"evil"
        assert identity_of(place.stat()) == before
        assert site.json("cache", "verify")["hashed"] == 0
        found = site.json("cache", "verify", "--again", status=1)
    assert (found["hashed"], found["unchanged"]) == (3, 0)
    assert found["quarantined"] == [name_of(SHARED)]
    [held] = site.json("cache", "status")["quarantined"]
    assert held["found_sha256"] == sha256(b"evil" + SHARED[4:]).hexdigest()


@pytest.mark.parametrize("trouble", [struct.error("argument out of range"), OSError(5, "EIO"), MemoryError()])
def test_a_file_that_cannot_be_measured_is_named_and_the_others_are_pinned(site, monkeypatch, trouble):
    bad = (site.cache_root / "shared-blobs" / name_of(b"own")).stat().st_ino
    original = Measurer.measure_here

    def measure(self, descriptor, keep_going):
        if os.fstat(descriptor).st_ino == bad:
            raise trouble
        return original(self, descriptor, keep_going)

    monkeypatch.setattr(Measurer, "measure_here", measure)
    found = site.in_session(lambda session: verify_cache(session, jobs=2, progress=Bar()))
    assert (found.is_good, found.unreadable, found.pinned) == (False, [name_of(b"own")], 1)
    assert type(trouble).__name__ in found.whys[name_of(b"own")]


def test_a_file_about_which_nothing_can_be_agreed_is_named_and_the_others_are_pinned(site, monkeypatch):
    original = PinLedger.agree

    async def agree(self, contents):
        if name_of(SHARED) in {md5 for md5, _ in contents}:
            raise Conflict("its record does not parse")
        return await original(self, contents)

    monkeypatch.setattr(PinLedger, "agree", agree)
    found = site.in_session(lambda session: verify_cache(session, jobs=2, progress=Bar()))
    assert (found.unreadable, found.pinned) == ([name_of(SHARED)], 1)
    assert found.whys == {name_of(SHARED): "its record does not parse"}


def test_why_a_file_is_left_aside_is_said_to_people_and_to_scripts(site):
    odd = "f" * 32
    os.mkfifo(site.cache_root / "shared-blobs" / odd)
    found = site.json("cache", "verify", status=1)
    assert (found["good"], found["unreadable"], found["pinned"], found["unchanged"]) == (False, [odd], 2, 0)
    assert found["why"] == {odd: f"{odd}: not a regular file"}
    assert f"{odd} is left aside" in site.run("cache", "verify", status=1).stderr


def test_without_a_cache_root_nothing_is_called_good(installation):
    installation.cache_root.rmdir()
    for command in (("cache", "verify"), ("cache", "status"), ("cache", "resolutions")):
        assert "does not exist" in installation.run(*command, status=3).stderr
