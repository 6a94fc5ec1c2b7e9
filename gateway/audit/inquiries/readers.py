"""Who read a model, a blob or a file: which keys, when, how often, how many bytes, and from where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.audit.inquiries.uses import OpenUses, Uses
from gateway.audit.record import DecisionRecord, OutcomeRecord

if TYPE_CHECKING:
    from typing import Final

    from gateway.audit.record import Record, ResourcePart

MAX_READERS: Final = 100_000
_USES: Final = frozenset({"read", "infer"})


class ReadQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What was read. All given names must match; `model` is the requested or the canonical one."""

    model: str | None = None
    blob: str | None = None  # its MD5 or its SHA-256
    file: str | None = None
    tenant: str | None = None  # whose reads

    def matches(self, resource: ResourcePart | None) -> bool:
        """Whether a resource is meant."""
        return resource is not None and (
            (self.model is None or self.model in {resource.model, resource.requested})
            and (self.blob is None or self.blob in {resource.md5, resource.sha256})
            and (self.file is None or self.file == resource.file)
        )


class ReadingKey(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one key read of it. `principal` tells a key from links and tokens that were made for it."""

    tenant: str | None
    tenant_record: str | None
    key_id: str | None
    principal: str | None
    action: str
    uses: Uses


class WhoRead:
    """Sums up the reads of one thing."""

    def __init__(self, question: ReadQuestion) -> None:
        self._question = question
        self._readers: dict[tuple[str | None, ...], ReadingKey] = {}
        self._open = OpenUses()
        self.left_out = 0  # reads of keys beyond `MAX_READERS`

    def take(self, record: Record) -> None:
        """Look at one record."""
        if isinstance(record, OutcomeRecord):
            self._open.close(record)
            return
        if not isinstance(record, DecisionRecord) or record.decision != "allow" or record.action is None:
            return
        question = self._question
        is_other = question.tenant is not None and record.tenant != question.tenant
        if is_other or record.action not in _USES or not question.matches(record.resource):
            return
        who = record.tenant, record.tenant_record, record.key_id, record.principal, record.action
        reader = self._readers.get(who)
        if reader is None:
            if len(self._readers) >= MAX_READERS:
                self.left_out += 1
                return
            reader = self._readers[who] = ReadingKey(
                tenant=record.tenant,
                tenant_record=record.tenant_record,
                key_id=record.key_id,
                principal=record.principal,
                action=record.action,
                uses=Uses(),
            )
        self._open.open(record, reader.uses)

    @property
    def readers(self) -> list[ReadingKey]:
        """Those who read it, the first one first."""
        return sorted(self._readers.values(), key=lambda one: one.uses.first)
