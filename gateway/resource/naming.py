"""Compute the directory of a model id: the engine's V2 naming rule, forward only.

    acme/cars/1  ->  v2-acme-cars-1-4751736a3e502d9ee0b162a4a2252d63

A directory is found by computing its name from an id that the caller is allowed to read. There is no reverse:
the readable part is lossy, and the digest is only compared. The older V1 names have a digest of 32 bits, for
which two ids with one directory were found in seconds; they belong to no model, are never computed here and
never match `is_v2_directory`.
"""

from __future__ import annotations

import re
from hashlib import blake2s
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model.names import ModelId

MODELS_CACHE = "models-cache"
SHARED_BLOBS = "shared-blobs"
MANIFEST = "model_config.json"

_MAX_READABLE_CHARACTERS = 48  # the engine's limit; the digest distinguishes ids that are equal after the cut
_NOT_READABLE = re.compile(r"[^A-Za-z0-9_-]+")
_RUN_OF_DASHES = re.compile(r"[_-]{2,}")
_V2_DIRECTORY = re.compile(rf"v2-[A-Za-z0-9_-]{{1,{_MAX_READABLE_CHARACTERS}}}-[0-9a-f]{{32}}")


def model_directory(model: ModelId) -> str:
    """The name of the model's directory below `models-cache`. Case and Unicode form count."""
    readable = _RUN_OF_DASHES.sub("-", _NOT_READABLE.sub("-", model)) or "special-char-only-model-id"
    digest = blake2s(model.encode(), digest_size=16).hexdigest()
    return f"v2-{readable[:_MAX_READABLE_CHARACTERS]}-{digest}"


def is_v2_directory(name: str) -> bool:
    """Whether a name found on disk has the V2 form.

    Which model it belongs to, only the forward rule tells.
    """
    return _V2_DIRECTORY.fullmatch(name) is not None
