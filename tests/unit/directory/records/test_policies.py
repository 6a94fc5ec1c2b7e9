from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.directory.records.codec import UnreadableRecordError
from gateway.directory.records.policies import (
    MAX_SETS_IN_MEMORY,
    PolicySets,
    decode_policy,
    decode_policy_head,
    encode_policy,
)

pytestmark = pytest.mark.anyio


def test_texts_that_are_not_those_of_the_head_are_unreadable(policy):
    head = decode_policy_head(encode_policy(policy)[0])
    _, _, other_text = encode_policy(replace(policy, schema="entity Other;"))
    with pytest.raises(UnreadableRecordError):
        decode_policy(other_text, head)


async def test_texts_are_read_once_a_head_and_memory_stays_bounded(policy):
    texts = {}
    asked = []

    async def read_text(digest):
        asked.append(digest)
        return texts.get(digest)

    sets = PolicySets(read_text)
    heads = []
    for number in range(MAX_SETS_IN_MEMORY + 2):
        raw_head, digest, text = encode_policy(replace(policy, schema=f"entity E{number};"))
        texts[digest] = text
        heads.append(decode_policy_head(raw_head))
        for _ in range(2):
            found = await sets.find(heads[-1])
            assert found is not None
            assert found.schema == f"entity E{number};"
    assert len(asked) == len(heads)
    assert len(sets._sets) == MAX_SETS_IN_MEMORY


async def test_a_head_whose_texts_are_gone_is_found_to_be_so(policy):
    async def read_text(_digest):
        return None

    assert await PolicySets(read_text).find(decode_policy_head(encode_policy(policy)[0])) is None
