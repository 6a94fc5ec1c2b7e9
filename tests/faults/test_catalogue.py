"""Models that are added to or removed from the disk are noticed by a running gateway."""

from __future__ import annotations

import shutil

from gateway.adapters.sample_cache import SampleModel, sample_directory, write_sample_cache

NEW = "acme/trucks/1"


def listed(gateway, site):
    return [one["id"] for one in gateway.wire.get("/v1/models", site.token).json()["models"]]


def test_a_model_that_comes_and_goes_is_listed_and_no_longer_listed(site, serve, paths, eventually):
    gateway = serve(site.installation)
    assert listed(gateway, site) == ["acme/cars/1"]
    cache = site.installation.cache_root
    write_sample_cache(cache, [SampleModel(model_id=NEW, packages={"p1": {"w.onnx": b"trucks"}})])
    assert gateway.wire.get(f"/v1/models/{NEW}/-/p1/w.onnx", site.token).body == b"trucks"
    eventually(lambda: NEW in listed(gateway, site))
    shutil.rmtree(cache / "models-cache" / sample_directory(NEW))
    assert gateway.wire.get(f"/v1/models/{NEW}/-/p1/w.onnx", site.token).status == 404
    eventually(lambda: NEW not in listed(gateway, site))


def test_a_package_that_comes_to_a_model_is_there_at_once(site, serve, paths):
    gateway = serve(site.installation)
    package = SampleModel(model_id="acme/cars/1", packages={"pkgB2": {"w.onnx": b"more"}})
    write_sample_cache(site.installation.cache_root, [package])
    found = gateway.wire.get("/v1/models/acme/cars/1", site.token).json()
    assert [one["id"] for one in found["packages"]] == ["pkgA1", "pkgB2"]
