"""The path grammar: parse the raw bytes of a request path to a `Resource`, and format names as paths.

    /v1/models                               the catalogue
    /v1/models/{id}                          a model
    /v1/models/{id}/-/{package}              a package
    /v1/models/{id}/-/{package}/{handle}     a file
    /v1/blobs/{md5}                          a blob
    /d/{id}/-/{package}/{handle}             a file, as signed links name it

A path is split on its raw bytes first, then each component is decoded once: whatever a `%2F` or a `%2D`
decodes to can no longer change a boundary. The first raw `/-/` ends the model id. An id that holds a `-`
segment is written with `%2D` there. File handles and digests need no escapes, so an escape in one is refused:
each file has one spelling.

Everything here works on names alone, without disk or facts: a path means the same for every caller and
whatever is in the cache (I3). Nothing is normalised, and no dot segment is ever resolved.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import quote

from gateway.model.access import Resource, ResourceKind
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.escapes import decode_once
from gateway.model.limits import MAX_TARGET_BYTES
from gateway.model.names import (
    MAX_NAME_BYTES,
    parse_file_handle,
    parse_md5,
    parse_model_id,
    parse_package_id,
)

if TYPE_CHECKING:
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId

MODELS_PATH = b"/v1/models"
BLOBS_PATH = b"/v1/blobs"
DOWNLOADS_PATH = b"/d"

REMEMBERED_PATHS = 4096
MAX_REMEMBERED_BYTES = 512  # of one path; longer ones are parsed each time

_MAX_RAW_NAME_BYTES = 3 * MAX_NAME_BYTES
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]*(?:/[A-Za-z0-9][A-Za-z0-9._~-]*)*")
"""A model id in which nothing is to be escaped: nearly all ids, and a page has a thousand."""

_END_OF_MODEL = b"/-/"
_NEVER_IN_A_PATH = re.compile(rb"[\x00-\x20\x7f?#]")
"""Raw, these bytes end a path or break a request line. Here they mean that a proxy before us split the
request in another place than we do. Escaped, they are checked by the grammar of names.
"""


def locate(raw_path: bytes) -> Resource:
    """Parse a raw request path without its query. Raises `Refusal` when it names no resource."""
    if raw_path == MODELS_PATH:
        return Resource(kind=ResourceKind.CATALOGUE)
    if raw_path.startswith(MODELS_PATH + b"/"):
        return parse_model_tail(raw_path[len(MODELS_PATH) + 1 :])
    if raw_path.startswith(BLOBS_PATH + b"/"):
        return parse_blob_tail(raw_path[len(BLOBS_PATH) + 1 :])
    raise Refusal(Reason.NO_ROUTE)


def parse_model_tail(raw_tail: bytes) -> Resource:
    """Parse what follows `/v1/models/`: a model, package or file.

    What a path names never changes, so the last ones are remembered; only authenticated callers get here.
    """
    is_short = len(raw_tail) <= MAX_REMEMBERED_BYTES
    return _parse_remembered(raw_tail) if is_short else _parse_model_tail(raw_tail)


def _parse_model_tail(raw_tail: bytes) -> Resource:
    _verify_raw(raw_tail)
    raw_model, raw_package, raw_file = _split(raw_tail)
    try:
        model = parse_model_id(_decoded_once(raw_model))
        if raw_package is None:
            return Resource(kind=ResourceKind.MODEL, model=model)
        package = parse_package_id(_decoded_once(raw_package))
        if raw_file is None:
            return Resource(kind=ResourceKind.PACKAGE, model=model, package=package)
        file = parse_file_handle(raw_file.decode("ascii"))
    except (BadNameError, UnicodeDecodeError) as error:
        raise Refusal(Reason.MALFORMED_PATH) from error
    return Resource(kind=ResourceKind.FILE, model=model, package=package, file=file)


_parse_remembered = lru_cache(REMEMBERED_PATHS)(_parse_model_tail)


def parse_blob_tail(raw_tail: bytes) -> Resource:
    """Parse what follows `/v1/blobs/`."""
    _verify_raw(raw_tail)
    try:
        md5 = parse_md5(raw_tail.decode("ascii"))
    except (BadNameError, UnicodeDecodeError) as error:
        raise Refusal(Reason.MALFORMED_PATH) from error
    return Resource(kind=ResourceKind.BLOB, md5=md5)


def shape_of(raw_path: bytes) -> ResourceKind:
    """Whether a raw path under `/v1/models/` has the shape of a model, a package or a file.

    By its raw boundaries alone: it never raises and does not check whether the components are valid names.
    """
    _, raw_package, raw_file = _split(raw_path.removeprefix(MODELS_PATH).removeprefix(b"/"))
    if raw_package is None:
        return ResourceKind.MODEL
    return ResourceKind.PACKAGE if raw_file is None else ResourceKind.FILE


def model_link(model: ModelId, package: PackageId | None = None, file: FileHandle | None = None) -> str:
    """The canonical path of a model, package or file: the one spelling that we write ourselves.

    For every valid name `locate` parses it back to the same names.
    """
    # A `-` segment would end the id too early. It is the only one that must be escaped although RFC 3986
    # counts its character as unreserved.
    text: str = model
    if not _PLAIN.fullmatch(model):
        segments = ("%2D" if segment == "-" else quote(segment, safe="") for segment in model.split("/"))
        text = "/".join(segments)
    link = f"{MODELS_PATH.decode()}/{text}"
    if package is not None:
        link += f"/-/{package}"
    if file is not None:
        if package is None:
            raise BadNameError("a file is named within a package")
        link = file_link(link, file)
    return link


def file_link(package_link: str, file: FileHandle) -> str:
    """The path of a file of the package with this path: for many files of one package."""
    return f"{package_link}/{file}"


def parse_download(raw_path: bytes) -> Resource:
    """Parse the path of a download to a file."""
    if not is_download(raw_path):
        raise Refusal(Reason.NO_ROUTE)
    return parse_model_tail(raw_path[len(DOWNLOADS_PATH) + 1 :])


def is_download(raw_path: bytes) -> bool:
    """Whether a raw path has the shape of a download, by its raw boundaries alone. Never raises."""
    if not raw_path.startswith(DOWNLOADS_PATH + b"/"):
        return False
    return _split(raw_path[len(DOWNLOADS_PATH) + 1 :])[2] is not None


def download_link(model: ModelId, package: PackageId, file: FileHandle) -> str:
    """The path of a file as signed links name it: one spelling, which clients leave unchanged.

    This text is signed, so no client may rewrite it. The engine's client does: it decodes every escape of a
    letter, a digit or one of `-._~`. So a `-` segment, which must not stand between two raw slashes, is not
    itself escaped here; the slashes beside it are, and those are left as written. (The model whose whole id
    is `-` has no slash to escape. Its links work with other clients only.)
    """
    segments = model.split("/")
    text = quote(segments[0], safe="") if len(segments) > 1 or model != "-" else "%2D"
    for before, segment in pairwise(segments):
        text += ("%2F" if "-" in {before, segment} else "/") + quote(segment, safe="")
    return f"{DOWNLOADS_PATH.decode()}/{text}/-/{package}/{file}"


def blob_link(md5: Md5) -> str:
    """The path of a blob."""
    return f"{BLOBS_PATH.decode()}/{md5}"


def _split(raw_tail: bytes) -> tuple[bytes, bytes | None, bytes | None]:
    """Model, package and file as raw bytes; None for a component that is missing (empty is not missing).

    The slash before the tail counts: `/v1/models/-/x` is a package of the model with the empty id, which is
    refused, and not the model `-/x`.
    """
    raw_model, mark, rest = (b"/" + raw_tail).partition(_END_OF_MODEL)
    raw_model = raw_model[1:]
    if not mark:
        return raw_model, None, None
    raw_package, slash, raw_file = rest.partition(b"/")
    return raw_model, raw_package, raw_file if slash else None


def _verify_raw(raw_tail: bytes) -> None:
    if len(raw_tail) > MAX_TARGET_BYTES:  # it names nothing; no work is done on it
        raise Refusal(Reason.PATH_TOO_LONG)
    if _NEVER_IN_A_PATH.search(raw_tail):
        raise Refusal(Reason.MALFORMED_PATH)


def _decoded_once(raw: bytes) -> str:
    """One round of strict percent-decoding, of what is short enough to be a name."""
    if len(raw) > _MAX_RAW_NAME_BYTES:  # decoding kilobytes of escapes would cost more than all the rest
        raise BadNameError("longer than any name, with every byte of it escaped")
    return decode_once(raw)
