"""The values of the front door: a route of the inference server, and what a request asks for.

Nothing here reads a request or sends one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from gateway.model.access import Credential
    from gateway.model.names import ModelId

Place = tuple[str | int, ...]
"""Where a value stands in a JSON body: names of members and indexes, from the top."""


class BodyKind(StrEnum):
    """What is done with the body of a request."""

    NONE = "none"  # the handler reads none: one that is there is refused
    JSON = "json"  # read whole, strictly, before anything is decided
    STREAM = "stream"  # an image: passed on as it comes, bounded


class Answering(StrEnum):
    """Who answers, and how an answer of the server is changed."""

    PASS = "pass"  # noqa: S105 -- not a password: the server's answer is passed on
    MODELS = "models"  # a list of models: only those that the caller may infer are left in it
    REGISTRY = "registry"  # made here, of what all servers list
    INFO = "info"  # made here, without a key
    WORKFLOW = "workflow"  # its workflow is described and authorised, then run
    BLOCKS = "blocks"  # about the blocks of workflows
    HEALTH = "health"  # made here, without a key: of the gateway itself
    CLOSED = "closed"  # refused, for everybody


class Naming(StrEnum):
    """Where the id of a route's model stands, for its handler."""

    NONE = "none"  # it names none
    MEMBER = "member"  # the member `model_id` of the body
    PATH = "path"  # the parameters of the path
    VERSION = "version"  # the version of a core model, in the member of its family
    FIXED = "fixed"  # nowhere: it is always the same model
    STAGES = "stages"  # the members for the stages of PP-OCR


class Existence(StrEnum):
    """When the server has a route."""

    ALWAYS = "always"
    FLAG = "flag"  # with a setting of its operator
    NEVER = "never"  # a row of ours, which closes what no row of the server's names


class ServerRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A route of the inference server, as its handler reads it: a row of the packaged table."""

    method: str  # `*`: any
    path: str  # in the form of the server's own table: `/infer/lmm/{model_id:path}`
    answering: Answering = Answering.PASS
    body: BodyKind = BodyKind.NONE
    exists: Existence = Existence.ALWAYS
    model: Naming = Naming.NONE
    family: str | None = None  # of core models: the one whose version is read
    id: str | None = None  # with `Naming.FIXED`
    default: str | None = None  # with `Naming.MEMBER`: the id that is used when the body has none
    images: tuple[str, ...] = ()  # members of the body, or `?image`: the parameter of a query
    image_ids: bool = False  # the handler keeps something under the body's `image_id`
    query: frozenset[str] = frozenset()  # parameters that pass
    reported: tuple[str, ...] = ()  # more forms of the id in `X-Model-Id`


class Matched(msgspec.Struct, frozen=True, kw_only=True):
    """A request's route, found as the server finds it, and the parameters of its decoded path."""

    route: ServerRoute
    values: dict[str, str]


class ImageUrl(msgspec.Struct, frozen=True, kw_only=True):
    """An image that the server would fetch. The gateway fetches it instead, if the tenant may name its host.

    The URL may hold a signature: it is never printed.
    """

    url: str
    place: Place | None  # None: the query parameter `image`

    def __repr__(self) -> str:
        return shown(self, hidden=("url",))


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks the inference server for. It has keys and bodies of a tenant: never printed."""

    matched: Matched
    credential: Credential | None  # None only where no key is needed (`Answering.INFO`, `HEALTH`)
    models: tuple[ModelId, ...]  # all that it loads or uses: the one that it names comes first
    reported: frozenset[str]  # the ids that the answer's `X-Model-Id` may name
    images: tuple[ImageUrl, ...]
    query: tuple[tuple[str, str], ...]  # decoded, without keys and without what is taken out
    document: Any  # the JSON body as parsed, for `write`; None without one

    def __repr__(self) -> str:
        return shown(self, hidden=("credential", "images", "query", "document"))
