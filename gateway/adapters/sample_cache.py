"""Writes a model cache with the engine's disk layout from a short description, for the demo and tests.

`cachegate demo` and tests need a cache without an engine, weights or a provider. Every file is where the
engine puts it and has the engine's format. Lock files and an auto-resolution entry are included, so that
tests can request what must not be served.

    write_sample_cache(root, [
        SampleModel(model_id="acme/cars/1", packages={"pkgA1": {"weights.onnx": b"..."}}),
    ])

The rule for the directory's name is implemented here a second time on purpose: if the writer used the
reader's code, a mistake in it would not be noticed, since both would agree with each other and not with the
engine.

Names are validated, because they become paths: to make a hostile cache, write a good one and damage it. This
module must not be used to fill a cache that an engine uses.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from hashlib import blake2s, file_digest, md5, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.model.names import parse_file_handle, parse_model_id, parse_package_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Content = bytes | Path
"""What a file holds. A path is copied by the kernel, so that large files do not pass through memory."""

MANIFEST_VERSION = 4
# Blobs and locks are readable; manifests, which the engine makes as temporary files, are private.
_READABLE, _PRIVATE = 0o644, 0o600
_WRITTEN_AT = "2026-01-01T00:00:00.000000"  # constant, so that the same input gives the same cache


class SampleModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model: package id -> file handle -> content. Handles in `unhashed` become package files."""

    model_id: str
    packages: Mapping[str, Mapping[str, Content]]
    unhashed: frozenset[str] = frozenset()


class SampleFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was written. `path` is its place in the package, `md5` its blob (None: unhashed)."""

    model_id: str
    package_id: str
    handle: str
    path: Path
    md5: str | None
    size: int


def write_sample_cache(
    root: Path, models: Iterable[SampleModel], *, writer_root: Path | None = None
) -> tuple[SampleFile, ...]:
    """Write these models below `root`. Other files there stay; repeating the call gives the same cache.

    `writer_root` is the path of the root as the writer sees it: links point there, as on a volume that is
    mounted elsewhere for us.
    """
    link_root = os.path.abspath(writer_root or root)  # noqa: PTH100 -- as the engine does: it resolves no link
    for folder in ("models-cache", "shared-blobs", "auto-resolution-cache"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    written: list[SampleFile] = []
    for model in models:
        parse_model_id(model.model_id)
        for package_id, files in model.packages.items():
            parse_package_id(package_id)
            package = _write_package(root, Path(link_root), model, package_id, files)
            _write_resolution(root, model.model_id, package_id)
            written.extend(package)
    return tuple(written)


def sample_directory(model_id: str) -> str:
    """Return the name of a model's directory below `models-cache`."""
    readable = re.sub(r"[_-]{2,}", "-", re.sub(r"[^A-Za-z0-9_-]+", "-", model_id))[:48]
    digest = blake2s(model_id.encode(), digest_size=16).hexdigest()
    return f"v2-{readable or 'special-char-only-model-id'}-{digest}"


def _write_package(
    root: Path, link_root: Path, model: SampleModel, package_id: str, files: Mapping[str, Content]
) -> list[SampleFile]:
    folder = root / "models-cache" / sample_directory(model.model_id)
    package = folder / package_id
    package.mkdir(parents=True, exist_ok=True)
    _touch(folder / f".{package_id}.materialization.lock")
    written = []
    artifacts = []
    for handle in sorted(files, key=lambda handle: (handle.casefold(), handle)):
        path = package / parse_file_handle(handle)
        path.parent.mkdir(parents=True, exist_ok=True)
        _touch(path.parent / f".{path.name}.lock")
        content = files[handle]
        digest = None
        if handle in model.unhashed:
            _write_content(path, content)
        else:
            digest = _write_blob(root, content)
            _write_link(path, link_root / "shared-blobs" / digest)
        artifacts.append(_artifact(model.model_id, package_id, handle, content, digest))
        written.append(
            SampleFile(
                model_id=model.model_id,
                package_id=package_id,
                handle=handle,
                path=path,
                md5=digest,
                size=content.stat().st_size if isinstance(content, Path) else len(content),
            )
        )
    _touch(package / ".model_config.json.lock")
    # Last, as the engine does: a package without a manifest is incomplete.
    _write_json(package / "model_config.json", _manifest(model.model_id, artifacts))
    return written


def _write_blob(root: Path, content: Content) -> str:
    """Write a blob under its digest, unless it exists: equal content is shared."""
    digest = _digest(content, "md5")
    blob = root / "shared-blobs" / digest
    _touch(blob.parent / f".{digest}.lock")
    if not blob.exists():
        _write_content(blob, content)
    return digest


def _write_link(path: Path, target: Path) -> None:
    if path.is_symlink() and path.readlink() == target:
        return
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _write_content(path: Path, content: Content) -> None:
    """Write to a temporary name in the same folder and rename, so that no reader sees a partial file."""
    partial = path.with_name(f"{path.name}.00000000-0000-4000-8000-000000000000")
    if isinstance(content, Path):
        shutil.copyfile(content, partial)
    else:
        partial.write_bytes(content)
    partial.chmod(_READABLE)
    partial.replace(path)


def _digest(content: Content, algorithm: str) -> str:
    if isinstance(content, Path):
        with content.open("rb") as file:
            return file_digest(file, algorithm).hexdigest()
    if algorithm == "md5":
        return md5(content, usedforsecurity=False).hexdigest()  # the engine's address of a blob
    return sha256(content).hexdigest()


def _artifact(
    model_id: str, package_id: str, handle: str, content: Content, digest: str | None
) -> dict[str, Any]:
    source = {"download_source": f"https://weights.example/{model_id}/{package_id}/{handle}"}
    return {
        "file_handle": handle,
        "md5_hash": digest,
        "unhashed": digest is None,
        "sha256_hash": _digest(content, "sha256") if digest is None else None,
        "source_hash": _json_digest(source) if digest is None else None,
        "storage": "package_file" if digest is None else "shared_blob",
    }


def _manifest(model_id: str, artifacts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "offline_manifest_version": MANIFEST_VERSION,
        "model_architecture": "resnet",
        "task_type": "classification",
        "backend_type": "onnx",
        "model_features": None,
        "trusted_source": True,
        "model_dependencies": [],
        "recommended_parameters": None,
        "quantization": "fp32",
        "dynamic_batch_size_supported": True,
        "static_batch_size": None,
        "canonical_model_id": model_id,
        "package_artifacts": artifacts,
        "dependency_package_paths": [],
        "model_id": model_id,
    }


def _write_resolution(root: Path, model_id: str, package_id: str) -> None:
    """Write an entry of the engine's auto-resolution cache. It must never be served, so tests need one."""
    entry = {
        "model_id": model_id,
        "cache_model_id": model_id,
        "canonical_model_id": model_id,
        "cache_attribution_version": 2,
        "credential_hash": _json_digest({"api_key": None}),
        "model_package_id": package_id,
        "resolved_files": [],
        "model_architecture": "resnet",
        "task_type": "classification",
        "backend_type": "onnx",
        "created_at": _WRITTEN_AT,
        "trusted_source": True,
    }
    path = (
        root / "auto-resolution-cache" / f"{_json_digest({'model_id': model_id, 'package': package_id})}.json"
    )
    _touch(path.with_name(f".{path.name}.lock"))
    _write_json(path, entry)


def _json_digest(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.sample.tmp")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.chmod(_PRIVATE)
    partial.replace(path)


def _touch(lock: Path) -> None:
    lock.touch()
    lock.chmod(_READABLE)
