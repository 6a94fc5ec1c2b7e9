"""One damaged file affects only itself: the running gateway goes on with the others, and names the file."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from hashlib import md5

import pytest

BASE = "/v1/models/acme/cars/1/-/pkgA1"
NO_TEXT = os.fsdecode(b"\xff\xfe odd\n")


def put_blob(site, content, name=None):
    name = name or md5(content, usedforsecurity=False).hexdigest()
    (site.blobs / name).write_bytes(content)
    return name


def pinned(site):
    """The blobs that were pinned so far, by any process."""
    subjects = [one for record in site.records("change", action="cache.pin") for one in record["subject"]]
    return {one.split()[0] for one in subjects}


def finding(site, name):
    [found] = [one for one in site.installation.json("doctor", status=None)["checks"] if one["name"] == name]
    return found


@pytest.mark.parametrize("year", [1900, 2400])
def test_a_date_far_away_takes_nothing_out_of_service(site, serve, eventually, year):
    moment = datetime(year, 1, 1, tzinfo=UTC).timestamp()
    place = site.place_of("small.bin")
    os.utime(place, (moment, moment))
    gateway = serve(site.installation)
    eventually(lambda: place.name in pinned(site))
    answer = gateway.wire.get(f"{BASE}/small.bin", site.token)
    assert (answer.status, answer.header("etag") is not None) == (200, True)
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).status == 200
    later = put_blob(site, b"what came after it")
    eventually(lambda: later in pinned(site))
    assert gateway.is_ready()
    assert gateway.metrics()["cachegate_chores_down"] == 0
    gateway.stop()
    verified = site.installation.json("cache", "verify")
    assert (verified["good"], verified["unreadable"]) == (True, [])
    assert finding(site, "blobs")["status"] == "ok"
    gateway = serve(site.installation)
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).status == 200


def test_names_that_are_no_text_are_in_nobodys_way(site, serve, eventually):
    models = site.installation.cache_root / "models-cache"
    [model] = models.iterdir()
    for folder in (models, model, model / "pkgA1", site.blobs):
        (folder / NO_TEXT).mkdir()
        (folder / f"{NO_TEXT}.file").write_bytes(b"")
    gateway = serve(site.installation)
    later = put_blob(site, b"what came after it")
    eventually(lambda: later in pinned(site))
    assert gateway.is_ready()
    assert gateway.wire.get("/v1/models", site.token).json()["models"]
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).status == 200
    assert gateway.metrics()["cachegate_chores_down"] == 0
    for command in (("cache", "verify"), ("cache", "status"), ("models", "list"), ("doctor",)):
        site.installation.json(*command)
        site.installation.run(*command)


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_a_blob_that_is_no_file_is_named_and_the_others_have_their_turn(site, serve, eventually, kind):
    odd = site.blobs / ("f" * 32)
    if kind == "fifo":
        os.mkfifo(odd)
    elif kind == "link":
        odd.symlink_to("/etc/hostname")
    else:
        odd.mkdir()
    gateway = serve(site.installation)
    eventually(lambda: site.place_of("small.bin").name in pinned(site))
    eventually(lambda: gateway.metrics().get('cachegate_chore_items_total{chore="pin-ahead"}'))
    assert gateway.is_ready()
    assert odd.name in gateway.log()
    found = finding(site, "blobs")
    assert (found["status"], odd.name in found["found"]) == ("warning", True)
    verified = site.installation.json("cache", "verify", status=1)
    assert (verified["unreadable"], list(verified["why"])) == ([odd.name], [odd.name])


def test_an_endless_blob_is_named_and_hashed_by_nobody_ahead(site, serve, eventually):
    endless = put_blob(site, b"", "e" * 32)
    with (site.blobs / endless).open("r+b") as file:
        try:
            file.truncate((1 << 40) + 1)
        except OSError:
            pytest.skip("this file system has no such large files")
    gateway = serve(site.installation)
    eventually(lambda: site.place_of("small.bin").name in pinned(site))
    eventually(lambda: endless in gateway.log())
    assert gateway.is_ready()
    found = finding(site, "blobs")
    assert (found["status"], endless in found["found"]) == ("warning", True)


def test_a_chore_that_ends_is_begun_again_and_readiness_comes_back(site, serve, eventually):
    """What it writes its lock to is in the way, and then it is not."""
    lock = site.installation.state / "pins" / "ahead.lock"
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock.mkdir()
    gateway = serve(site.installation, is_awaited=False)
    eventually(lambda: failures_of(gateway, "pin-ahead"))
    assert not gateway.is_ready()
    checks = gateway.ops.get("/readyz").json()["checks"]
    assert [name for name, holds in checks.items() if not holds] == ["chores"]
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).status == 200
    lock.rmdir()
    eventually(gateway.is_ready)
    eventually(lambda: site.place_of("small.bin").name in pinned(site))
    log = gateway.log()
    assert "pin-ahead" in log
    assert str(lock) in log


def failures_of(gateway, chore):
    try:
        return gateway.metrics().get(f'cachegate_chore_failures_total{{chore="{chore}"}}')
    except OSError:
        return None
