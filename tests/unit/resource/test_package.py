"""The two forms in which a listed file is served, and everything else that can be in its place."""

from __future__ import annotations

import json
import os
import resource
import threading
from pathlib import Path

import pytest

from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.names import MAX_NAME_SEGMENTS
from gateway.resource.manifest import MAX_MANIFEST_BYTES

OTHER_MD5 = "0" * 32


def _refused(cache, handle="weights.onnx"):
    """Opening the file is refused, and no listing has it."""
    with pytest.raises(Refusal) as refusal:
        cache.open(handle)
    assert refusal.value.reason == Reason.UNSERVABLE
    assert handle not in (cache.handles() or ())
    file = cache.written.get(handle)
    if file is not None and file.md5 is not None:
        assert cache.find_blob(cache.model, cache.package, file.md5) is None


def _undecided(cache, handle="weights.onnx"):
    """The answer is undecided, in every face."""
    md5 = cache.written[handle].md5
    for ask in (
        lambda: cache.open(handle),
        cache.handles,
        lambda: cache.find_blob(cache.model, cache.package, md5),
    ):
        with pytest.raises(Unavailable) as failure:
            ask()
        assert failure.value.reason is Reason.CACHE_UNAVAILABLE


def _relink(path, target):
    path.unlink()
    path.symlink_to(target)


def _edit_manifest(cache, edit):
    document = json.loads(cache.manifest.read_text())
    edit(document)
    cache.manifest.write_text(json.dumps(document))


def test_a_blob_is_served_through_the_packages_link(cache):
    assert cache.open("weights.onnx") == b"weights of cars"


def test_a_file_in_a_folder_is_served(cache):
    assert cache.open("extra/labels.bin") == b"labels"
    assert cache.open("extra/more.txt") == b"more"


def test_an_unhashed_file_is_served_from_the_package(cache):
    assert cache.open("notes.txt") == b"free text"


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "{secret}",
        "../../../shared-blobs/{md5}",
        "{root}/shared-blobs/{other}",
        "{root}/shared-blobs/../shared-blobs/{md5}",
        "{root}//shared-blobs/{md5}",
        "{root}/./shared-blobs/{md5}",
        "{root}/shared-blobs/{md5}/",
        "{root}/shared-blobs/{md5}\n",
        "{root}/shared-blobs/{MD5}",
        "{root}/shared-blobs/.{md5}.lock",
        "{root}/shared-blobs",
        "{root}/models-cache/{other}",
        "/elsewhere/shared-blobs/{md5}",
        "class_names.txt",
        "weights.onnx",
    ],
)
def test_a_link_with_any_other_text_is_unservable(cache, secret, target):
    md5 = cache.written["weights.onnx"].md5
    (cache.blobs / OTHER_MD5).write_bytes(b"another tenant's")
    names = {"root": cache.root, "md5": md5, "MD5": md5.upper(), "other": OTHER_MD5, "secret": secret}
    _relink(cache.package_folder / "weights.onnx", target.format(**names))
    _refused(cache)


def test_a_link_to_the_blob_of_another_listed_file_is_unservable(cache):
    _relink(cache.package_folder / "weights.onnx", cache.blob_of("class_names.txt"))
    _refused(cache)


def test_a_chain_of_links_is_unservable(cache):
    _relink(cache.package_folder / "weights.onnx", cache.package_folder / "class_names.txt")
    _refused(cache)


def test_a_regular_file_in_the_place_of_a_link_is_unservable(cache):
    path = cache.package_folder / "weights.onnx"
    path.unlink()
    path.write_bytes(b"weights of cars")
    _refused(cache)


def test_a_link_in_the_place_of_an_unhashed_file_is_unservable(cache, secret):
    _relink(cache.package_folder / "notes.txt", secret)
    _refused(cache, "notes.txt")


def test_a_right_link_in_the_place_of_an_unhashed_file_is_unservable(cache):
    _relink(cache.package_folder / "notes.txt", cache.blob_of("weights.onnx"))
    _refused(cache, "notes.txt")


def test_a_folder_that_is_a_link_is_unservable(cache, secret):
    folder = cache.package_folder / "extra"
    folder.rename(cache.package_folder / "moved")
    (secret.parent / "more.txt").write_bytes(b"not yours")
    folder.symlink_to(secret.parent)
    _refused(cache, "extra/more.txt")
    _refused(cache, "extra/labels.bin")


@pytest.mark.parametrize("lies_there", ["link", "link to another blob", "fifo", "directory"])
def test_a_blob_that_is_no_regular_file_is_unservable_and_nothing_hangs(cache, secret, lies_there):
    blob = cache.blob_of("weights.onnx")
    assert "weights.onnx" in cache.handles()
    blob.unlink()
    match lies_there:
        case "link":
            blob.symlink_to(secret)
        case "link to another blob":
            blob.symlink_to(cache.blob_of("class_names.txt"))
        case "fifo":
            os.mkfifo(blob)
        case "directory":
            blob.mkdir()
    _refused(cache)
    assert cache.open("class_names.txt") == b"car\n"


def test_shared_blobs_that_is_a_link_serves_nothing(cache):
    cache.blobs.rename(cache.root / "moved")
    cache.blobs.symlink_to(cache.root / "moved")
    _undecided(cache)


def test_a_linked_blob_is_not_called_absent_while_there_are_no_blobs_at_all(cache):
    """Their volume is not mounted: the link shows that there was a blob."""
    cache.blobs.rename(cache.root / "moved")
    _undecided(cache)
    assert cache.open("notes.txt") == b"free text"


def test_a_blob_may_have_other_names_and_a_package_file_may_not(cache, tmp_path):
    (tmp_path / "snapshot").hardlink_to(cache.blob_of("weights.onnx"))
    assert cache.open("weights.onnx") == b"weights of cars"
    notes = cache.package_folder / "notes.txt"
    notes.unlink()
    notes.hardlink_to(cache.blob_of("weights.onnx"))
    _refused(cache, "notes.txt")


def test_a_listed_file_that_is_absent_is_absent_and_the_rest_is_served(cache):
    cache.blob_of("weights.onnx").unlink()
    (cache.package_folder / "notes.txt").unlink()
    assert cache.open("weights.onnx") is None
    assert cache.open("notes.txt") is None
    assert cache.handles() == ["class_names.txt", "extra/labels.bin", "extra/more.txt"]


def test_a_link_that_is_absent_is_absent_although_the_blob_is_there(cache):
    (cache.package_folder / "weights.onnx").unlink()
    assert cache.open("weights.onnx") is None
    assert cache.find_blob(cache.model, cache.package, cache.written["weights.onnx"].md5) is None


def test_a_file_in_a_folder_that_is_absent_is_absent(cache):
    (cache.package_folder / "extra").rename(cache.package_folder / "moved")
    assert cache.open("extra/labels.bin") is None


def test_a_deep_file_is_served_however_few_descriptors_there_are(cache):
    handle = "/".join(["d"] * (MAX_NAME_SEGMENTS - 1) + ["deep.bin"])
    cache.write({handle: b"deep"}, package="deep")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    already = len([*Path("/proc/self/fd").iterdir()])
    resource.setrlimit(resource.RLIMIT_NOFILE, (already + 12, hard))
    try:
        assert cache.open(handle, package="deep") == b"deep"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_that_the_manifest_does_not_list_is_not_there(cache):
    (cache.package_folder / "backend.engine").write_bytes(b"dropping")
    (cache.package_folder / "link.onnx").symlink_to(cache.blob_of("weights.onnx"))
    assert cache.open("backend.engine") is None
    assert cache.open("link.onnx") is None
    assert not {"backend.engine", "link.onnx"} & set(cache.handles())


@pytest.mark.parametrize("handle", ["model_config.json", ".weights.onnx.lock", "../pkgA1/weights.onnx"])
def test_what_is_no_file_handle_is_not_there_even_if_somebody_asks(cache, handle):
    assert cache.open(handle) is None


@pytest.mark.parametrize("handle", ["../../etc/passwd", "/etc/passwd", "model_config.json", ".x.lock"])
def test_a_manifest_that_lists_what_the_engine_refuses_makes_the_package_unservable(cache, handle):
    _edit_manifest(cache, lambda document: document["package_artifacts"][0].update(file_handle=handle))
    _refused(cache)
    assert cache.handles() is None
    assert cache.packages(cache.model) == ()


def test_a_manifest_cannot_turn_a_regular_file_into_one_with_a_digest(cache):
    """An unhashed regular file, listed as a shared blob with some digest."""

    def list_it(document):
        for artifact in document["package_artifacts"]:
            if artifact["file_handle"] == "notes.txt":
                digest = cache.written["weights.onnx"].md5
                artifact.update(md5_hash=digest, unhashed=False, storage="shared_blob")

    _edit_manifest(cache, list_it)
    _refused(cache, "notes.txt")


def test_a_local_file_with_a_digest_is_served_as_nobodys_blob(cache):
    def list_it(document):
        for artifact in document["package_artifacts"]:
            if artifact["file_handle"] == "notes.txt":
                artifact.update(md5_hash=OTHER_MD5, unhashed=False)

    _edit_manifest(cache, list_it)
    assert cache.open("notes.txt") == b"free text"
    assert cache.find_blob(cache.model, cache.package, OTHER_MD5) is None
    (entry,) = [file for file in cache.listing(cache.model, cache.package).files if file.size == 9]
    assert (entry.handle, entry.md5) == ("notes.txt", None)


@pytest.mark.parametrize("lies_there", ["huge", "nested", "half", "link", "fifo", "directory", "empty"])
def test_a_manifest_that_is_none_makes_the_package_unservable(cache, lies_there):
    content = cache.manifest.read_bytes()
    cache.manifest.unlink()
    match lies_there:
        case "huge":
            with cache.manifest.open("wb") as file:
                file.truncate(4 * 1024**4)  # sparse; reading it would exhaust the memory
        case "nested":
            cache.manifest.write_bytes(b'{"a":' * (MAX_MANIFEST_BYTES // 8))
        case "half":
            cache.manifest.write_bytes(content[: len(content) // 2])
        case "link":
            (cache.package_folder / "kept.json").write_bytes(content)
            cache.manifest.symlink_to("kept.json")
        case "fifo":
            os.mkfifo(cache.manifest)
        case "directory":
            cache.manifest.mkdir()
        case "empty":
            cache.manifest.touch()
    _refused(cache)
    assert cache.handles() is None
    assert cache.packages(cache.model) == ()


def test_a_package_without_a_manifest_is_not_there_yet(cache):
    cache.manifest.rename(cache.package_folder / ".model_config.json.abc.tmp")
    assert cache.open("weights.onnx") is None
    assert cache.handles() is None
    assert cache.packages(cache.model) == ()


def test_no_link_put_in_the_place_of_a_directory_is_followed_at_any_moment(cache, secret):
    """A writer swaps the package's directory for a link and back, as fast as it can."""
    impostor = secret.parent / "impostor"
    impostor.mkdir()
    (impostor / "model_config.json").write_bytes(cache.manifest.read_bytes())
    (impostor / "notes.txt").write_bytes(b"not yours")
    away = cache.folder / "away"
    done = threading.Event()

    def swap():
        while not done.is_set():
            cache.package_folder.rename(away)
            cache.package_folder.symlink_to(impostor)
            cache.package_folder.unlink()
            away.rename(cache.package_folder)

    seen = set()
    writer = threading.Thread(target=swap)
    writer.start()
    try:
        for _ in range(400):
            try:
                seen.add(cache.open("notes.txt"))
            except Refusal as refusal:
                seen.add(refusal.reason)
    finally:
        done.set()
        writer.join()
    assert seen <= {b"free text", None, Reason.UNSERVABLE}
    assert cache.open("notes.txt") == b"free text"


@pytest.mark.parametrize("swapped_in", ["link", "fifo", "hard link", "nothing"])
@pytest.mark.timeout(20)
def test_what_takes_a_files_place_between_the_look_and_the_opening_is_not_served(
    cache, secret, swapped_in, monkeypatch
):
    notes = cache.package_folder / "notes.txt"
    really_open = os.open

    def open_after_a_swap(path, *args, **kwargs):
        if path == "notes.txt":
            notes.unlink()
            match swapped_in:
                case "link":
                    notes.symlink_to(secret)
                case "fifo":
                    os.mkfifo(notes)
                case "hard link":
                    notes.hardlink_to(secret)
        return really_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_after_a_swap)
    if swapped_in == "nothing":
        assert cache.open("notes.txt") is None
        return
    with pytest.raises(Refusal) as refusal:
        cache.open("notes.txt")
    assert refusal.value.reason == Reason.UNSERVABLE
