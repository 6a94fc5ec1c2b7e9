"""Stores the policy set as two records: a small head, and the texts that it names by their SHA-256.

Every decision depends on the head, so it is read often, compared byte by byte and kept small. The texts are
large and never change under their name: they are read once, checked against the digest, and cached. The head
alone therefore identifies the rules in a stamp.

Non-goal: whether the texts are valid Cedar. `decision/` denies by a set that does not parse.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from gateway.directory.records.codec import UnreadableRecordError, decode, encode
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.facts import PolicySet
from gateway.model.records import PolicyHead, PolicyTexts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MAX_SETS_IN_MEMORY = 4  # the one in force, its predecessor, and spare ones for readers in between


def encode_policy(policy: PolicySet) -> tuple[bytes, bytes, bytes]:
    """Return the head's record, the digest that names the texts, and the texts' record."""
    text = encode(PolicyTexts(schema=policy.schema, policies=policy.policies))
    text_digest = sha256(text).digest()
    head = PolicyHead(
        generation=policy.generation, source=policy.source, digest=policy.digest, text_digest=text_digest
    )
    return encode(head), text_digest, text


def decode_policy_head(raw: bytes) -> PolicyHead:
    """Decode the head, which names the texts in force."""
    return decode(PolicyHead, raw)


def decode_policy(raw_text: bytes, head: PolicyHead) -> PolicySet:
    """Decode the policy set of a head and its text record; the text is checked against its digest."""
    if sha256(raw_text).digest() != head.text_digest:
        raise UnreadableRecordError("the policy texts are not those that the head names")
    texts = decode(PolicyTexts, raw_text)
    return PolicySet(
        schema=texts.schema,
        policies=texts.policies,
        digest=head.digest,
        generation=head.generation,
        source=head.source,
    )


class PolicySets:
    """Caches the last policy sets, so that texts are transferred once. Bounded; keyed by whole heads."""

    def __init__(self, read_text: Callable[[bytes], Awaitable[bytes | None]]) -> None:
        self._read_text = read_text
        self._sets: BoundedMemory[PolicyHead, PolicySet] = BoundedMemory(max_entries=MAX_SETS_IN_MEMORY)

    async def find(self, head: PolicyHead) -> PolicySet | None:
        """Return the set of this head; None if its texts are gone because a newer head is in force."""
        known = self._sets.find(head)
        if known is not None:
            return known
        raw_text = await self._read_text(head.text_digest)
        if raw_text is None:
            return None
        policy = decode_policy(raw_text, head)
        self._sets.put(head, policy)
        return policy
