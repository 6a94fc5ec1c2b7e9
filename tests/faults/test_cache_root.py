"""A missing cache is not an empty cache: every face answers 503, and service resumes once it is there."""

from __future__ import annotations

import shutil
import subprocess
from hashlib import md5

import pytest

from gateway.adapters.sample_cache import SampleModel, sample_directory, write_sample_cache

MODEL, PACKAGE, SMALL = "acme/cars/1", "pkgA1", b"small enough to be sent at once\n"
BASE = f"/v1/models/{MODEL}/-/{PACKAGE}"
DIGEST = md5(SMALL, usedforsecurity=False).hexdigest()
FACES = (
    "/v1/models",
    f"/v1/models/{MODEL}",
    BASE,
    f"{BASE}/small.bin",
    f"{BASE}/nothing.bin",
    f"/v1/blobs/{DIGEST}",
    f"/models/v1/external/weights?modelId={MODEL}",
    f"/models/v1/external/stat?modelId={MODEL}",
)
PUBLIC_URL = "https://gateway.example"


def unreadable(gateway):
    """The checks of readiness that do not hold."""
    return [name for name, holds in gateway.ops.get("/readyz").json()["checks"].items() if not holds]


def verify_undecided(site, gateway, *, but=()):
    """503 by every face, recorded as what it is; what is decided without the cache is unchanged."""
    for path in FACES:
        if path in but:
            assert gateway.wire.get(path, site.token).status == 200
            continue
        for method in ("GET", "HEAD"):
            answer = gateway.wire.request(method, path, site.token)
            assert (answer.status, answer.header("retry-after")) == (503, "1"), path
            [record] = [one for one in site.records("decision") if one["id"] == answer.record_id]
            assert record["reason"] == "cache-unavailable"
    assert gateway.wire.get("/v1/models/other/1/-/p/x", site.token).status == 404
    assert gateway.wire.get("/v1/models").status == 401
    assert gateway.wire.get("/v1/whoami", site.token).status == 200
    assert unreadable(gateway) == ["cache"]


def verify_served(site, gateway):
    assert [one["id"] for one in gateway.wire.get("/v1/models", site.token).json()["models"]] == [MODEL]
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).body == SMALL
    assert gateway.wire.get(f"{BASE}/nothing.bin", site.token).status == 404
    for path in FACES:
        assert gateway.wire.get(path, site.token).status == (404 if path.endswith("nothing.bin") else 200)


def problem(site):
    [found] = [one for one in site.installation.json("doctor", status=1)["checks"] if one["name"] == "cache"]
    return found


@pytest.fixture
def site(site):
    site.installation.environment["CACHEGATE_PUBLIC_URL"] = PUBLIC_URL
    return site


@pytest.mark.parametrize("lies_there", ["nothing", "file", "dangling link"])
def test_a_root_that_is_no_cache_is_said_at_the_start_and_served_once_it_is_one(
    site, serve, eventually, lies_there
):
    root = site.installation.cache_root
    away = root.with_name("away")
    root.rename(away)
    if lies_there == "file":
        root.write_bytes(b"")
    elif lies_there == "dangling link":
        root.symlink_to(root.with_name("gone"))
    gateway = serve(site.installation, is_awaited=False)
    eventually(lambda: "the cache cannot be read" in gateway.log())
    eventually(lambda: is_up(gateway))
    verify_undecided(site, gateway)
    assert problem(site)["status"] == "fail"
    for command in (("cache", "verify"), ("cache", "status")):
        assert "cache" in site.installation.run(*command, status=3).stderr
    if lies_there != "nothing":
        root.unlink()
    away.rename(root)
    eventually(gateway.is_ready)
    verify_served(site, gateway)
    assert "the cache is there again" in gateway.log()


def is_up(gateway):
    try:
        return gateway.ops.get("/readyz").json()["workers"]["answering"] == 1
    except OSError:
        return False


AWAY = {
    "the root": lambda root: [root],
    "models-cache": lambda root: [root / "models-cache"],
    "shared-blobs": lambda root: [root / "shared-blobs"],
}


@pytest.mark.parametrize("folders", AWAY.values(), ids=AWAY)
def test_what_goes_away_while_it_is_served_is_not_called_empty_and_comes_back(
    site, serve, eventually, folders
):
    gateway = serve(site.installation)
    verify_served(site, gateway)
    moved = [
        (one, site.installation.folder / f"away-{one.name}") for one in folders(site.installation.cache_root)
    ]
    for one, away in moved:
        one.rename(away)
    # From the first moment on nothing is reported absent; a list from a moment ago is still used.
    for path in (f"{BASE}/nothing.bin", f"/v1/models/{MODEL}/-/none"):
        assert gateway.wire.get(path, site.token).status == 503
    eventually(lambda: unreadable(gateway) == ["cache"])
    # Which packages a model has is in the manifests, which are there.
    is_of_blobs = moved[0][0].name == "shared-blobs"
    verify_undecided(site, gateway, but=(f"/v1/models/{MODEL}",) if is_of_blobs else ())
    assert problem(site)["status"] == "fail"
    for one, away in moved:
        away.rename(one)
    eventually(gateway.is_ready)
    verify_served(site, gateway)


def test_an_empty_root_of_a_node_that_saw_models_is_a_volume_that_is_not_mounted(site, serve, eventually):
    """As after a restart of the machine, before the volume is there."""
    gateway = serve(site.installation)
    verify_served(site, gateway)
    gateway.stop()
    root = site.installation.cache_root
    root.rename(root.with_name("away"))
    root.mkdir()
    gateway = serve(site.installation, is_awaited=False)
    eventually(lambda: is_up(gateway))
    eventually(lambda: unreadable(gateway) == ["cache"])
    verify_undecided(site, gateway)
    assert "seen-cache.json" in problem(site)["found"]
    (site.installation.state / "seen-cache.json").unlink()
    eventually(gateway.is_ready)
    assert gateway.wire.get("/v1/models", site.token).json()["models"] == []
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).status == 404


def test_a_cache_that_is_emptied_where_it_lies_is_an_empty_one(site, serve, eventually):
    gateway = serve(site.installation)
    verify_served(site, gateway)
    shutil.rmtree(site.installation.cache_root / "models-cache" / sample_directory(MODEL))
    eventually(lambda: gateway.wire.get("/v1/models", site.token).json()["models"] == [])
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).status == 404
    assert gateway.is_ready()


def test_a_fresh_cache_is_an_empty_one_until_the_engine_has_loaded_something(
    installation, furnish_with, serve
):
    site = furnish_with({"small.bin": SMALL})
    shutil.rmtree(site.installation.cache_root)
    site.installation.cache_root.mkdir()
    gateway = serve(site.installation)
    assert gateway.wire.get("/v1/models", site.token).json()["models"] == []
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).status == 404
    write_sample_cache(
        site.installation.cache_root, [SampleModel(model_id=MODEL, packages={PACKAGE: {"small.bin": SMALL}})]
    )
    assert gateway.wire.get(f"{BASE}/small.bin", site.token).body == SMALL


@pytest.mark.root
def test_a_volume_that_is_unmounted_and_mounted_again(site, serve, eventually):
    """A real mount: its mount point is an empty folder, on another device."""
    root = site.installation.cache_root
    kept = root.with_name("kept")
    root.rename(kept)
    root.mkdir()
    mount(kept, root)
    try:
        gateway = serve(site.installation)
        verify_served(site, gateway)
        subprocess.run(["umount", root], check=True)
        assert gateway.wire.get(f"{BASE}/nothing.bin", site.token).status == 503
        eventually(lambda: unreadable(gateway) == ["cache"])
        verify_undecided(site, gateway)
        mount(kept, root)
        eventually(gateway.is_ready)
        verify_served(site, gateway)
    finally:
        # `os.path.ismount` does not see a bind mount of the same file system.
        subprocess.run(["umount", "--lazy", root], check=False, stderr=subprocess.DEVNULL)


def mount(what, where):
    subprocess.run(["mount", "--bind", what, where], check=True)
