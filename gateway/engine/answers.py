"""Parse a provider's answer to `/models/v1/external/weights` and replace its download URLs.

Only the `downloadUrl` values change. The engine refuses a package for good when another field of it changes
between two answers, so every other value is kept as the bytes it came in, numbers and unknown fields
included, and keys keep their order. A key that occurs twice in one of the objects that are parsed is kept
once, with the last value, which every reader we know of takes.

Only what links are made of is parsed: model, packages, files. An answer without these, in the shape that the
engine requires, is undecided.

**Withheld packages.** A package that the engine would skip or refuse (another type, a field missing, a bad
name or digest, a file named twice, an id that another package differs from in case only) gets no links, and
its original URLs are not shown: they are the provider's, usable by anyone who reads them, and maybe made for
another tenant. Of such a package its type and id remain. The engine cannot parse that either, so it skips the
package with the warning that it would have given anyway. A package that is complete except that its
*manifest* is of an unknown type gets its links: a newer engine may know that type.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec.structs import replace

from gateway.engine.faults import undecided
from gateway.model.errors import BadNameError
from gateway.model.hidden_fields import shown
from gateway.model.names import (
    MAX_SEGMENT_CHARACTERS,
    parse_file_handle,
    parse_md5,
    parse_model_id,
    parse_package_id,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from gateway.model.names import FileHandle, Md5, ModelId, PackageId

MAX_ANSWER_BYTES = 2 * 1024 * 1024
"""One page. A file takes about 1 kB in it, most of that a signed URL: two thousand files. It is parsed on the
event loop: a faulty provider must not hold it for longer than a moment.
"""

MAX_PACKAGES = 256  # of one page; a model has some twenty in all
MAX_FILES = 2_000  # of one page
MAX_MEMBERS = 65_536
"""Of all objects and lists of one page, counted by its colons and commas: a file has six, and one or two in
its URL. Each is decoded in one call, which nothing else in the process can interrupt: some 5 ms.
"""

FIELD_BYTES = 160  # what a decoded field takes, beside the body: measured, rounded up
FILE_BYTES = 700  # the same of a file, beside its URL

METADATA_TYPE = "external-model-metadata-v1"
PACKAGE_TYPE = "external-model-package-v1"

_PLAIN = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_SEGMENT_CHARACTERS}}}")


class PackageFile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One file of a package; `md5` is None for one that the provider gives no digest of."""

    handle: FileHandle
    md5: Md5 | None
    download_url: str | None  # may be signed; None when the answer is made locally

    def __repr__(self) -> str:
        return shown(self, hidden=("download_url",))


class AnsweredPackage(msgspec.Struct, frozen=True, kw_only=True):
    """One package that the answer lists with links."""

    package: PackageId
    files: tuple[PackageFile, ...]


Link: TypeAlias = "Callable[[PackageId, PackageFile], str]"
"""Returns the new `downloadUrl` for a file of a package."""

_Object = dict[str, msgspec.Raw]


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A package as it came, and the parsed package; `offered` is None when it is withheld."""

    offered: AnsweredPackage | None
    fields: _Object
    files: tuple[_Object, ...] = ()


class _Tree(msgspec.Struct, frozen=True, kw_only=True):
    """The answer as it came, decoded as far as links need it."""

    top: _Object
    metadata: _Object
    entries: tuple[_Entry, ...]


class MetadataPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of an answer."""

    model: ModelId  # the canonical id, as the provider states it
    next_page: str | None
    packages: tuple[AnsweredPackage, ...]
    withheld: int
    tree: _Tree

    def __repr__(self) -> str:
        return shown(self, hidden=("tree",))

    @property
    def held_bytes(self) -> int:
        """How many bytes it takes beside the body that it was parsed from."""
        tree = self.tree
        fields = len(tree.top) + len(tree.metadata)
        fields += sum([len(one.fields) + sum(map(len, one.files)) for one in tree.entries])
        urls = [file.download_url or "" for one in self.packages for file in one.files]
        return FIELD_BYTES * fields + FILE_BYTES * len(urls) + sum(map(len, urls))


_OBJECTS = msgspec.json.Decoder(_Object)
_LISTS = msgspec.json.Decoder(list[msgspec.Raw])
_TEXTS = msgspec.json.Decoder(str)
_OPTIONAL_TEXTS = msgspec.json.Decoder(str | None)


def parse_answer(raw: bytes) -> MetadataPage:
    """Parse the body of a 200. Raises `Unavailable` for everything that is no valid answer."""
    if len(raw) > MAX_ANSWER_BYTES:
        raise undecided(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    try:
        raw.decode("utf-8")  # what is passed on undecoded must still be text
        if raw.count(b":") + raw.count(b",") > MAX_MEMBERS:
            raise undecided(f"the answer has more than {MAX_MEMBERS} fields and items")
        top = _OBJECTS.decode(raw)
        metadata = _OBJECTS.decode(top["modelMetadata"])
        if _TEXTS.decode(metadata["type"]) != METADATA_TYPE:
            raise undecided("the answer is of a type that is not known here")
        _TEXTS.decode(metadata["modelArchitecture"])
        model = parse_model_id(_TEXTS.decode(metadata["modelId"]))
        next_page = _optional_text(metadata, "nextPage")
        items = _LISTS.decode(metadata["modelPackages"])
        if len(items) > MAX_PACKAGES:
            raise undecided(f"the answer has more than {MAX_PACKAGES} packages on one page")
        fields = [_OBJECTS.decode(item) for item in items]
        if sum(_count_files(one) for one in fields) > MAX_FILES:
            raise undecided(f"the answer has more than {MAX_FILES} files on one page")
        entries = _parse_entries(fields)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise undecided("the answer is not JSON of the expected shape") from error
    except KeyError as error:
        raise undecided(f"the answer lacks the field {error.args[0]}") from error
    except BadNameError as error:
        raise undecided("the answer is about what is no model id") from error
    return MetadataPage(
        model=model,
        next_page=next_page,
        packages=tuple(entry.offered for entry in entries if entry.offered is not None),
        withheld=sum(entry.offered is None for entry in entries),
        tree=_Tree(top=top, metadata=metadata, entries=entries),
    )


def rewritten(answer: MetadataPage, link: Link) -> bytes:
    """The answer's body with `link`'s URLs. `link` is called once for each listed file, in order."""
    packages = [_rewritten_entry(entry, link) for entry in answer.tree.entries]
    metadata = {**answer.tree.metadata, "modelPackages": packages}
    return msgspec.json.encode({**answer.tree.top, "modelMetadata": metadata})


def narrowed(answer: MetadataPage, shown: Container[PackageId]) -> MetadataPage:
    """The answer with these packages only, as if it had no others; withheld packages are removed as well."""
    if all(entry.offered is not None and entry.offered.package in shown for entry in answer.tree.entries):
        return answer
    entries = tuple(
        entry for entry in answer.tree.entries if entry.offered is not None and entry.offered.package in shown
    )
    return replace(
        answer,
        packages=tuple(entry.offered for entry in entries if entry.offered is not None),
        withheld=0,
        tree=replace(answer.tree, entries=entries),
    )


def _rewritten_entry(entry: _Entry, link: Link) -> dict[str, Any]:
    if entry.offered is None:
        return dict(entry.fields)
    files = [
        {**fields, "downloadUrl": link(entry.offered.package, file)}
        for fields, file in zip(entry.files, entry.offered.files, strict=True)
    ]
    return {**entry.fields, "packageFiles": files}


def _parse_entries(items: Sequence[_Object]) -> tuple[_Entry, ...]:
    """Parse each package by itself: an invalid one withholds no other."""
    entries = [_parse_entry(fields) for fields in items]
    # An id counts as taken by a withheld package, too: which of the two is meant cannot be determined.
    taken = Counter(_claimed_text(fields, "packageId").lower() for fields in items)
    return tuple(
        _withheld(entry.fields)
        if entry.offered is not None and taken[entry.offered.package.lower()] > 1
        else entry
        for entry in entries
    )


def _count_files(fields: _Object) -> int:
    """How many files a package names; 0 where `packageFiles` is no list."""
    try:
        return len(_LISTS.decode(fields["packageFiles"]))
    except (KeyError, msgspec.DecodeError):
        return 0


def _parse_entry(fields: _Object) -> _Entry:
    try:
        if _TEXTS.decode(fields["type"]) != PACKAGE_TYPE:
            return _withheld(fields)
        package = parse_package_id(_TEXTS.decode(fields["packageId"]))
        _OBJECTS.decode(fields["packageManifest"])
        pairs = [_parse_file(item) for item in _LISTS.decode(fields["packageFiles"])]
    except (msgspec.DecodeError, KeyError, BadNameError):
        return _withheld(fields)
    files = tuple(file for _, file in pairs)
    if len({file.handle.lower() for file in files}) != len(files):
        return _withheld(fields)
    offered = AnsweredPackage(package=package, files=files)
    return _Entry(offered=offered, fields=fields, files=tuple(raw_file for raw_file, _ in pairs))


def _parse_file(item: msgspec.Raw) -> tuple[_Object, PackageFile]:
    fields = _OBJECTS.decode(item)
    md5 = _optional_text(fields, "md5Hash")
    return fields, PackageFile(
        handle=parse_file_handle(_TEXTS.decode(fields["fileHandle"])),
        md5=None if md5 is None else parse_md5(md5),
        download_url=_TEXTS.decode(fields["downloadUrl"]) or None,
    )


def _withheld(fields: _Object) -> _Entry:
    shown = {name: fields[name] for name in ("type", "packageId") if _is_plain(fields, name)}
    return _Entry(offered=None, fields=shown)


def _is_plain(fields: _Object, name: str) -> bool:
    """Whether it is a plain name, in which no URL can be hidden."""
    return _PLAIN.fullmatch(_claimed_text(fields, name)) is not None


def _claimed_text(fields: _Object, name: str) -> str:
    try:
        return _TEXTS.decode(fields[name])
    except (KeyError, msgspec.DecodeError):
        return ""


def _optional_text(fields: _Object, name: str) -> str | None:
    return _OPTIONAL_TEXTS.decode(fields[name]) if name in fields else None
