"""Questions about access: may this subject do this with that resource, asked by somebody else.

A question is no access: it reads nothing and has a record of a kind of its own. What it is answered is what
the subject's own request would be answered, so a yes stands on the same facts and is checked once more before
it is sent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway.model.access import Action, Resource
    from gateway.model.errors import Reason
    from gateway.model.names import KeyId, ModelId, TenantId
    from gateway.model.stamps import Stamp


class SubjectKind(StrEnum):
    """Who can be asked about."""

    KEY = "key"
    TENANT = "tenant"  # whether any unbound key of it may, with the scopes that a key has by default


class Subject(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whom a question is about: a key or a tenant, by its name alone. It may not exist."""

    kind: SubjectKind
    name: KeyId | TenantId


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One question. None stands for what nobody has or knows: a name that does not parse, an unknown type.

    `moment` and `address` are claims of whoever asks. They can turn a yes into a no, never a no into a yes
    that does not hold now. `error` says what is wrong with a question that cannot be answered.
    """

    subject: Subject | None = None
    action: Action | None = None
    resource: Resource | None = None
    moment: float | None = None
    address: str | None = None
    error: str | None = None


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one question, and what it stands on. `reason` is for the record alone."""

    question: Question
    is_yes: bool
    reason: Reason
    model: ModelId | None = None  # the canonical id
    grant: str | None = None
    policies: tuple[str, ...] = ()
    stamp: Stamp | None = None
    is_undecided: bool = False  # something that it depends on did not answer: asked again, it may be a yes

    @property
    def answer(self) -> str:
        """In one word, for records and metrics. Who asked is told no where it is undecided."""
        return "yes" if self.is_yes else "undecided" if self.is_undecided else "no"


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """The answers to the questions of one request, in order. A batch is answered as a list."""

    answers: tuple[Answered, ...]
    is_batch: bool
