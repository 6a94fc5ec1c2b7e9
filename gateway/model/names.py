"""Parse the names of tenants, keys, models, packages, files and blobs.

A name is checked once, where it enters, and is a plain string from then on; its type says that it
was checked. The grammars of packages, files and digests are the engine's own, so that a name that
parses here is one the engine could have written. Nothing is normalised: case and Unicode form are
part of a name.
"""

from __future__ import annotations

import re
from typing import NewType

from gateway.model.errors import BadNameError, NameTooLongError

TenantId = NewType("TenantId", str)
KeyId = NewType("KeyId", str)
BindingId = NewType("BindingId", str)
ModelId = NewType("ModelId", str)
PackageId = NewType("PackageId", str)
FileHandle = NewType("FileHandle", str)
Md5 = NewType("Md5", str)
GroupName = NewType("GroupName", str)
Pattern = NewType("Pattern", str)
"""A model id, or `prefix/*` for every model whose id starts with `prefix/`."""

BINDING_PREFIX = "bnd_"
"""What tells the id of a binding from that of a key."""

MAX_NAME_BYTES = 512
"""Of a model id, a pattern and a file handle, as UTF-8: twice the longest seen in practice.

A name is part of Redis names, cache keys and audit records, so this bounds all of them."""

MAX_NAME_SEGMENTS = 16
"""Of the same: a model id in practice has two to four, a file handle one to five.

Each segment of a model id is one more record that a decision reads and depends on."""

MAX_SEGMENT_CHARACTERS = 255  # what a file system holds in one name, and the engine's own limit

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY_ID = re.compile(r"key_[0-9A-Za-z]{12}")
_BINDING_ID = re.compile(rf"{BINDING_PREFIX}[0-9A-Za-z]{{12}}")
_PACKAGE = re.compile(rf"[A-Za-z0-9]{{1,{MAX_SEGMENT_CHARACTERS}}}")
_FILE_SEGMENT = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_SEGMENT_CHARACTERS}}}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_UNSAFE_IN_MODEL = re.compile(r"[*\x00-\x1f\x7f-\x9f\\\ud800-\udfff\u2028\u2029]")
_PLAIN_MODEL = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*", re.ASCII)
_LOCK_FILE = re.compile(r"\..*\.lock", re.DOTALL)

_DEVICES = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"COM{n}" for n in range(1, 10)), *(f"LPT{n}" for n in range(1, 10))}
)
_RESERVED_FIRST_SEGMENTS = frozenset({"model_config.json", "model_dependencies", "dependencies"})


def parse_tenant_id(text: str) -> TenantId:
    """A tenant id: up to 64 letters, digits, dots, underscores and dashes, not starting with punctuation."""
    if not _TENANT.fullmatch(text):
        raise BadNameError(f"{text!r} is not a tenant id: expected [A-Za-z0-9][A-Za-z0-9._-]{{0,63}}")
    return TenantId(text)


def parse_key_id(text: str) -> KeyId:
    """A key id as `keys create` prints it. It names a key and grants nothing."""
    if not _KEY_ID.fullmatch(text):
        raise BadNameError(
            "not a key id: expected key_ and 12 letters or digits (`cachegate keys list` shows them)"
        )
    return KeyId(text)


def parse_binding_id(text: str) -> BindingId:
    """The id of a binding of an outside issuer's subject. It names the binding and grants nothing."""
    if not _BINDING_ID.fullmatch(text):
        raise BadNameError(
            "not a binding id: expected bnd_ and 12 letters or digits (`cachegate bindings list` shows them)"
        )
    return BindingId(text)


def parse_group_name(text: str) -> GroupName:
    """A model group's name: the grammar of tenant ids."""
    if not _TENANT.fullmatch(text):
        raise BadNameError(f"{text!r} is not a group name: expected [A-Za-z0-9][A-Za-z0-9._-]{{0,63}}")
    return GroupName(text)


def parse_model_id(text: str) -> ModelId:
    """A model id: `/`-separated segments, none empty or a dot segment, no control character.

    Nor a backslash or a star. The engine accepts almost anything; what is refused here could not come
    from a provider and is used in path attacks. The star is reserved for patterns, so that no id can
    be taken for one.
    """
    _verify_bounds(text, "a model id")
    if _PLAIN_MODEL.fullmatch(text):  # nearly all of them: contains nothing that is refused below
        return ModelId(text)
    if not text or _UNSAFE_IN_MODEL.search(text):
        raise BadNameError(
            f"{text!r} is not a model id: it is empty or holds a control character, backslash or star"
        )
    if not text.isascii() and len(text.encode()) > MAX_NAME_BYTES:  # lone surrogates are refused above
        raise _too_long("a model id")
    if any(segment in {"", ".", ".."} for segment in text.split("/")):
        raise BadNameError(f"{text!r} is not a model id: it has an empty or dot segment")
    return ModelId(text)


def parse_pattern(text: str) -> Pattern:
    """A model id, or `prefix/*`. A bare `*` is refused: it would mean every model of every tenant.

    The bounds are those of model ids, the star included: a longer prefix could cover no model id.
    """
    _verify_bounds(text, "a pattern")
    stem = text.removesuffix("/*")
    if _PLAIN_MODEL.fullmatch(stem):
        return Pattern(text)
    if "*" in stem:
        raise BadNameError(
            f"{text!r} is not a pattern: expected a model id or prefix/* (the star stands last, alone)"
        )
    parse_model_id(stem)
    if not text.isascii() and len(text.encode()) > MAX_NAME_BYTES:
        raise _too_long("a pattern")
    return Pattern(text)


def parse_package_id(text: str) -> PackageId:
    """A package id by the engine's rule: letters and digits, at most 255, no Windows device name."""
    if not _PACKAGE.fullmatch(text) or text.upper() in _DEVICES:
        raise BadNameError(
            f"not a package id: expected 1 to {MAX_SEGMENT_CHARACTERS} ASCII letters and digits, "
            "no device name"
        )
    return PackageId(text)


def parse_file_handle(text: str) -> FileHandle:
    """A file handle by the engine's rule, which excludes manifests, dependency links and lock files."""
    _verify_bounds(text, "a file handle")  # the characters allowed below are ASCII: a character is a byte
    segments = text.split("/")
    if segments[0].casefold() in _RESERVED_FIRST_SEGMENTS:
        raise BadNameError("not a file handle: the engine keeps this name for itself")
    for segment in segments:
        if not _FILE_SEGMENT.fullmatch(segment) or segment in {".", ".."} or segment[-1] in ". ":
            raise BadNameError("not a file handle: expected [A-Za-z0-9._-]+ segments, no dot segment")
        if segment.split(".", 1)[0].upper() in _DEVICES or _LOCK_FILE.fullmatch(segment):
            raise BadNameError("not a file handle: a device name or a lock file")
    return FileHandle(text)


def parse_md5(text: str) -> Md5:
    """A blob's name: 32 lower-case hex digits, as the engine writes it."""
    if not _MD5.fullmatch(text):
        raise BadNameError("not a blob name: expected 32 lower-case hex digits")
    return Md5(text)


def covers(pattern: Pattern, model: ModelId) -> bool:
    """Whether a pattern names this model, or a prefix of its id."""
    stem = pattern.removesuffix("*")
    return model == stem if stem == pattern else model.startswith(stem)


def ancestors(model: ModelId) -> tuple[Pattern, ...]:
    """The patterns that cover a model, most specific first: its own id, then `prefix/*` at each slash."""
    cuts = [index for index, character in enumerate(model) if character == "/"]
    return (Pattern(model), *(Pattern(f"{model[:cut]}/*") for cut in reversed(cuts)))


def _verify_bounds(text: str, kind: str) -> None:
    """Refuse a text that is too long before any other work. A character is at least a byte."""
    if len(text) > MAX_NAME_BYTES or text.count("/") >= MAX_NAME_SEGMENTS:
        raise _too_long(kind)


def _too_long(kind: str) -> NameTooLongError:
    """The message does not repeat the text, which may be long."""
    return NameTooLongError(
        f"{kind} has at most {MAX_NAME_SEGMENTS} segments and {MAX_NAME_BYTES} bytes of UTF-8: "
        "this one is longer"
    )
