"""The routes of one version of the inference server, as packaged data: what each handler reads, and where.

The data are policy, not code: an operator can read them, and a test compares them with the running server. A
table that does not parse stops the start, since a row that is read wrongly would authorise one model and load
another. A server of another version has no table, and then there is no front door.

Non-goals: to find the route of a request (`matching.py`) and to read one (`reading.py`).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.front_door.values import Answering, BodyKind, Naming, ServerRoute
from gateway.model.access import ALLOWABLE
from gateway.model.errors import BadNameError, Misconfigured
from gateway.model.names import ModelId, parse_model_id

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER_VERSIONS = ("1.8.3",)
"""The versions that have a table."""

_PACKAGED = Path(__file__).parent.parent / "packaged_policies" / "servers"
_CHECKOUT = Path(__file__).parent.parent.parent / "policies" / "servers"

MAX_ID_CHARACTERS = 255
"""Of a model id that a request names; the server makes names of files of it."""

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)?")
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9_.-]*|\{[a-z_]+(?::str|:path)?\}))+")
_FIELD_RULES = frozenset({"pass", "drop", "refuse", "true", "false"})
_IMAGES = frozenset({"image", "video", "subject", "prompt", "training_data", "?image"})


class Family(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A family of core models: the member of a body that has the version, and the version without one."""

    member: str
    default: str


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stage of a model that is made of two: its member in a body, and the prefix of its models."""

    member: str
    prefix: str


class Stages(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that is made of two others, each in one of several sizes, or absent."""

    family: str
    values: tuple[str, ...]
    default: str
    absent: str
    detection: Stage
    recognition: Stage
    member: str  # names both in one text

    def of(self, model_id: str) -> tuple[str, str] | None:
        """The two stages of an id of this family; None for another, or one that the server does not know."""
        if model_id == self.family:
            return self.default, self.default
        family, _, token = model_id.partition("/")
        if family != self.family:
            return None
        return self.split(token)

    def split(self, token: str) -> tuple[str, str] | None:
        """The two stages that a text names: `small`, `tiny-none`. None where there is no such model."""
        first, dash, second = token.partition("-")
        stages = (first, second if dash else first)
        if not all(stage in self.values for stage in stages) or stages == (self.absent, self.absent):
            return None
        return stages

    def models(self, stages: tuple[str, str]) -> list[str]:
        """The models that the two stages load."""
        sides = zip((self.detection, self.recognition), stages, strict=True)
        return [f"{side.prefix}{stage}" for side, stage in sides if stage != self.absent]


class RefusedParameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A parameter of a query with a value that its route refuses before it does anything."""

    parameter: str
    value: str


class Workflows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server's description of a workflow means.

    `operations`: the action that has to be permitted for each, or nothing for a harmless one. `selectors`: by
    block type, the id of the model that it loads where an input has `{value}`. What stands in neither is
    refused.
    """

    operations: dict[str, str]
    selectors: dict[str, str]


class _Brings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all models whose id has a prefix load besides."""

    prefix: str
    models: tuple[str, ...]


class StatefulModels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models that have to be told what to look for: their routes, and the member that tells it."""

    prefix: str
    paths: tuple[str, ...]
    member: str


class _Row(ServerRoute, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row as it is written; a member that is not known is an error."""


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The packaged document."""

    version: str
    id_members: tuple[str, ...]
    fields: dict[str, str]
    families: dict[str, Family]
    stages: Stages
    brings: tuple[_Brings, ...]
    stateful: tuple[StatefulModels, ...]
    legacy_refuses: RefusedParameter
    workflows: Workflows
    routes: tuple[_Row, ...]
    aliases: dict[str, str]


class ServerTable(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All that is known of one version of the server."""

    version: str
    routes: tuple[ServerRoute, ...]  # in the server's order: the first that matches is the request's
    patterns: tuple[re.Pattern[str], ...]  # of their paths
    literals: dict[tuple[str, str], int]  # by method and path: the row of a path that no earlier row matches
    parametric: tuple[int, ...]  # the rows with parameters
    id_members: frozenset[str]
    fields: dict[str, str]
    families: dict[str, Family]
    stages: Stages
    brings: tuple[_Brings, ...]
    stateful: tuple[StatefulModels, ...]
    legacy_refuses: (
        RefusedParameter  # goes along where the legacy route could be found in place of one that is off
    )
    workflows: Workflows
    aliases: dict[str, str]

    def models_of(self, requested: str) -> tuple[ModelId, ...]:
        """All that a request for this id loads: itself first, the model behind an alias, what they bring."""
        models = [requested]
        if requested in self.aliases:
            models.append(self.aliases[requested])
        for model in tuple(models):
            models.extend(self._brings_of(model))
        return tuple(ModelId(model) for model in dict.fromkeys(models))

    def _brings_of(self, model: str) -> Iterator[str]:
        stages = self.stages.of(model)
        if stages is not None:
            yield from self.stages.models(stages)
        for rule in self.brings:
            if model.startswith(rule.prefix):
                for model_id in rule.models:
                    yield model_id.replace("{rest}", model.removeprefix(rule.prefix))


def parse_served_id(text: str) -> ModelId:
    """A model id that the server takes in only one way. Raises `BadNameError`.

    It has one slash or none, and letters, digits, dots, dashes and underscores: commas separate the ids in
    an answer's `X-Model-Id`, and a colon begins what the server appends to an id. The server reads a version
    as a number where it can. So one that is written in another way (`01`, `1_0`) is refused: the server could
    keep what it knows of two models under one name.
    """
    if len(text) > MAX_ID_CHARACTERS or not _ID.fullmatch(text):
        raise BadNameError("not an id of a model that the inference server could serve")
    version = text.rpartition("/")[2]
    if version.replace("_", "").lstrip("-").isdigit() and version != _as_number(version):
        raise BadNameError("the version of a model is a number that is not written in the usual way")
    return parse_model_id(text)


def _as_number(version: str) -> str | None:
    try:
        return str(int(version))
    except ValueError:
        return version  # `1__0`, `1-2`: no number for the server either


def could_be_legacy(route: ServerRoute) -> bool:
    """Whether the server would find the legacy route for this path, if this one were switched off there."""
    return "{" not in route.path and route.path.count("/") == len(("data set", "version"))


@cache
def load_table(version: str) -> ServerTable:
    """The table of a version of the server. Raises `Misconfigured`, where there is none or it is wrong."""
    if version not in SERVER_VERSIONS:
        known = ", ".join(SERVER_VERSIONS)
        raise Misconfigured(
            "the inference server's version",
            f"is {version!r}; the routes of {known} are known here, no other",
        )
    name = f"inference-{version}.toml"
    folder = _PACKAGED if (_PACKAGED / name).exists() else _CHECKOUT
    try:
        text = (folder / name).read_bytes()
    except OSError as error:
        raise Misconfigured(str(folder / name), f"cannot be read: {error.strerror}") from error
    return parse_table(text, str(folder / name), version)


def parse_table(text: bytes, where: str, version: str) -> ServerTable:
    """The table in a document. Raises `Misconfigured`."""
    try:
        document = msgspec.toml.decode(text, type=_Document)
    except msgspec.DecodeError as error:  # ValidationError is one
        raise Misconfigured(where, f"is not a table of routes: {error}") from error
    for problem in _problems(document, version):
        raise Misconfigured(where, problem)
    routes = tuple(ServerRoute(**msgspec.structs.asdict(row)) for row in document.routes)
    patterns = tuple(map(_pattern, routes))
    literals: dict[tuple[str, str], int] = {}
    for index, route in enumerate(routes):
        before = zip(routes[:index], patterns[:index], strict=True)
        is_first = not any(
            other.method in {route.method, "*"} and pattern.fullmatch(route.path) for other, pattern in before
        )
        if "{" not in route.path and is_first:
            literals[route.method, route.path] = index
    return ServerTable(
        version=document.version,
        routes=routes,
        patterns=patterns,
        literals=literals,
        parametric=tuple(index for index, route in enumerate(routes) if "{" in route.path),
        id_members=frozenset(document.id_members),
        fields=document.fields,
        families=document.families,
        stages=document.stages,
        brings=document.brings,
        stateful=document.stateful,
        legacy_refuses=document.legacy_refuses,
        workflows=document.workflows,
        aliases=document.aliases,
    )


_PARAMETER = re.compile(r"\{([a-z_]+)(?::(str|path))?\}")


def _pattern(route: ServerRoute) -> re.Pattern[str]:
    """The path as the server's router matches it: a parameter is one segment, a `path` is any rest."""
    pattern = ""
    end = 0
    for found in _PARAMETER.finditer(route.path):
        pattern += re.escape(route.path[end : found.start()])
        pattern += f"(?P<{found[1]}>{'.*' if found[2] == 'path' else '[^/]+'})"
        end = found.end()
    return re.compile(pattern + re.escape(route.path[end:]), re.DOTALL)


def _problems(document: _Document, version: str) -> Iterator[str]:
    """What is wrong with a document that has the right shape."""
    if document.version != version:
        yield f"is of version {document.version!r}, not {version!r}"
    if wrong := sorted(set(document.fields.values()) - _FIELD_RULES):
        yield f"has unknown rules for fields: {', '.join(wrong)}"
    if both := sorted(set(document.fields) & {*document.id_members, "api_key", "image_id", *_IMAGES}):
        yield f"has rules for fields that mean something else: {', '.join(both)}"
    yield from _problems_of_names(document)
    if wrong := sorted({*document.workflows.operations.values()} - {"", *ALLOWABLE}):
        yield f"has unknown actions of workflows: {', '.join(wrong)}"
    seen: set[tuple[str, str]] = set()
    for row in document.routes:
        if (row.method, row.path) in seen:
            yield f"has two rows for {row.method} {row.path}"
        seen.add((row.method, row.path))
        for problem in (*_problems_of_row(row, document), *_problems_of_reading(row, document)):
            yield f"{row.method} {row.path}: {problem}"


def _problems_of_names(document: _Document) -> Iterator[str]:
    members = {family.member for family in document.families.values()}
    members |= {document.stages.detection.member, document.stages.recognition.member, document.stages.member}
    if missing := sorted({*members, "model_id"} - set(document.id_members)):
        yield f"names no id_members: {', '.join(missing)}"
    for alias, canonical in document.aliases.items():
        if "/" in alias or canonical in document.aliases:
            yield f"has an alias with a slash, or of an alias: {alias}"
        yield from _problems_of_ids(alias, canonical)
    for name, family in document.families.items():
        yield from _problems_of_ids(f"{name}/{family.default}")
    paths = {path for rule in document.stateful for path in rule.paths}
    if unknown := sorted(paths - {row.path for row in document.routes}):
        yield f"tells of routes that it does not have: {', '.join(unknown)}"


def _problems_of_ids(*identifiers: str) -> Iterator[str]:
    for identifier in identifiers:
        try:
            parse_served_id(identifier)
        except BadNameError as error:
            yield f"{identifier}: {error}"


def _problems_of_row(row: _Row, document: _Document) -> Iterator[str]:
    if row.method not in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "*"}:
        yield "an unknown method"
    if not _PATH.fullmatch(row.path):
        yield "not a path"
    if (row.answering in {Answering.PASS, Answering.MODELS}) != (row.model is not Naming.NONE):
        yield "a route that is passed on names a model, and no other does"
    if row.answering is Answering.CLOSED and (row.body, row.images, row.query) != (
        BodyKind.NONE,
        (),
        frozenset(),
    ):
        yield "a closed route reads nothing"
    if row.model in {Naming.MEMBER, Naming.VERSION, Naming.STAGES} and row.body is not BodyKind.JSON:
        yield "its model stands in a body that it does not read"
    if (row.model is Naming.VERSION and row.family is None) or row.family not in {None, *document.families}:
        yield "no such family"
    if (row.model is Naming.FIXED) != (row.id is not None):
        yield "an id goes with `fixed`, and `fixed` with an id"
    identifiers = [identifier for identifier in (row.id, row.default) if identifier is not None]
    yield from _problems_of_ids(*identifiers)


def _problems_of_reading(row: _Row, document: _Document) -> Iterator[str]:
    if row.model is Naming.PATH and "{" not in row.path:
        yield "its path has no parameters"
    if not set(row.images) <= _IMAGES or ("?image" in row.images) != (row.body is BodyKind.STREAM):
        yield "unknown places of images"
    if row.query & {*document.fields, "api_key", "image", "image_type"} - {
        name for name, rule in document.fields.items() if rule == "pass"
    }:
        yield "lets a parameter pass that has a rule of its own"
