"""A real cache on disk, a catalogue of it, and a count of open descriptors."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.model.names import ModelId
from gateway.resource.catalogue import CatalogueSettings, DiskCatalogue
from gateway.resource.naming import model_directory


class SetClock:
    """A clock that shows the time that a test sets."""

    def __init__(self):
        self.time = time.time()  # noqa: TID251 -- it is compared with the times of files

    def now(self):
        return self.time


class Cache:
    """A sample cache, and the paths that hostile tests write to."""

    model = "acme/cars/1"
    package = "pkgA1"

    def __init__(self, root):
        self.root = root
        self.models = root / "models-cache"
        self.blobs = root / "shared-blobs"
        self.clock = SetClock()
        self.written = {
            file.handle: file
            for file in self.write(
                {
                    "weights.onnx": b"weights of cars",
                    "class_names.txt": b"car\n",
                    "extra/labels.bin": b"labels",
                },
                unhashed={"notes.txt": b"free text", "extra/more.txt": b"more"},
            )
        }
        self.folder = self.models / model_directory(self.model)
        self.package_folder = self.folder / self.package
        self.manifest = self.package_folder / "model_config.json"
        self.catalogue = DiskCatalogue(CatalogueSettings(root=root), self.clock)

    def write(self, files, unhashed=None, model=None, package=None, writer_root=None):
        unhashed = unhashed or {}
        sample = SampleModel(
            model_id=model or self.model,
            packages={package or self.package: {**files, **unhashed}},
            unhashed=frozenset(unhashed),
        )
        return write_sample_cache(self.root, [sample], writer_root=writer_root)

    def blob_of(self, handle):
        return self.blobs / self.written[handle].md5

    def wait(self, coroutine):
        """The result of an asynchronous call to the catalogue."""
        return asyncio.run(coroutine)

    def packages(self, model):
        return self.wait(self.catalogue.packages(model))

    def listing(self, model, package, **page):
        return self.wait(self.catalogue.listing(model, package, **page))

    def find_blob(self, model, package, md5):
        return self.wait(self.catalogue.find_blob(model, package, md5))

    def open_file(self, model, package, handle):
        return self.wait(self.catalogue.open_file(model, package, handle))

    def refresh(self, *known):
        self.wait(self.catalogue.refresh([ModelId(model) for model in known]))

    def open(self, handle="weights.onnx", model=None, package=None):
        """The content of the file that `open_file` returns, or None."""
        found = self.open_file(model or self.model, package or self.package, handle)
        if found is None:
            return None
        with os.fdopen(found.descriptor, "rb") as file:
            return file.read()

    def handles(self, model=None, package=None):
        """The handles of the listing, or None."""
        listing = self.listing(model or self.model, package or self.package)
        return None if listing is None else [file.handle for file in listing.files]


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def secret(tmp_path):
    """A file outside of the cache, which must never be served."""
    path = tmp_path / "outside" / "secret"
    path.parent.mkdir()
    path.write_bytes(b"not yours")
    return path


@pytest.fixture(autouse=True)
def _no_descriptor_leaks(tmp_path):
    """Only descriptors of this test's folder: other tests' gateways may run beside it."""
    yield
    assert _open_files(below=tmp_path) == {}


def _open_files(below):
    """The descriptors of this process below a folder, with their paths."""
    found = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = descriptor.readlink()
        except FileNotFoundError:
            continue  # the descriptor by which the folder was listed
        if target.is_relative_to(below):
            found[descriptor.name] = str(target)
    return found
