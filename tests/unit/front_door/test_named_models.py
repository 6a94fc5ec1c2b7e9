from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.front_door.named_models import (
    MAX_ID_BYTES,
    MEMBER,
    MEMBER_IN_WORKFLOWS,
    with_known_ids,
    with_known_ids_in,
)
from gateway.model.errors import Reason, Refusal

pytestmark = pytest.mark.anyio

KNOWN = {"acme/1", "caf\xe9/1"}


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def passed(text, *, size=None, on_other=lambda: None, member=MEMBER):
    """What is passed on of a document that comes in pieces of a size."""

    async def pieces():
        for start in range(0, len(text), size or len(text)):
            yield text[start : start + (size or len(text))]

    got = b"".join([piece async for piece in with_known_ids(pieces(), KNOWN, on_other, member)])
    assert with_known_ids_in(text, KNOWN, on_other, member) == got  # as a whole as in pieces
    return got


def prediction(model_id, **more):
    return {"resolved_model": {"model_id": model_id, "backend": "onnx"}, "predictions": [{"x": 1}], **more}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, None])
@pytest.mark.parametrize("separators", [(",", ":"), (" , ", " \n:\t")])
async def test_an_id_that_was_authorised_passes_and_another_is_taken_out(size, separators):
    for model_id, shown in (("acme/1", "acme/1"), ("globex/1", ""), ("caf\xe9/1", "caf\xe9/1"), ("", "")):
        text = json.dumps([prediction(model_id), {"embedding_info": {"model_id": model_id}}],
                          separators=separators).encode()  # fmt: skip
        got = await passed(text, size=size)
        assert len(got) == len(text)
        assert json.loads(got) == [prediction(shown), {"embedding_info": {"model_id": shown}}]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, None])
async def test_in_what_a_workflow_gives_the_ids_of_predictions_alone_are_compared(size):
    given = {"model_id": "mine", "text": '"resolved_model":{"model_id":"mine"', "x": prediction("globex/1")}
    text = json.dumps(given, separators=(",", ":")).encode()
    got = await passed(text, size=size, member=MEMBER_IN_WORKFLOWS)
    assert json.loads(got) == given | {"x": prediction("")}


@pytest.mark.parametrize("size", [1, 9, None])
@pytest.mark.parametrize(
    "document",
    [
        {"predictions": {"model_id": {"confidence": 0.5}, "x": {"model_id": [1]}}},
        {"predictions": ["model_id", "globex/1"], "a": "model_id", "b": 'a "model_id": "globex/1"'},
        {"model_id": None, "model_ids": "globex/1", "x": '"model_id'},
        {"text": "\\", "model": "globex/1"},
    ],
)
async def test_what_is_no_id_of_a_model_passes_as_it_is(document, size):
    text = json.dumps(document).encode()
    assert await passed(text, size=size) == text


@pytest.mark.parametrize(
    "text", [b'{"model_id"', b'{"model_id":', b'{"model_id": "acme/1', b'{"mod', b"", b"\xff"]
)
async def test_a_document_that_breaks_off_is_not_made_whole(text):
    assert await passed(text, size=1) == text


async def test_an_escaped_id_is_compared_as_what_it_says():
    assert await passed(b'{"model_id":"acme\\/1"}') == b'{"model_id":"acme\\/1"}'
    assert await passed(b'{"model_id":"a\\"b"}') == b'{"model_id":""    }'
    assert await passed(b'{"model_id":"acme/1\\u0000"}') == b'{"model_id":""            }'
    assert await passed(b'{"model_id":"\xff"}') == b'{"model_id":"" }'


@pytest.mark.parametrize("size", [1, 300])
async def test_an_id_without_an_end_is_not_waited_for(size):
    with pytest.raises(Refusal) as refusal:
        await passed(b'{"model_id":"' + b"a" * (2 * MAX_ID_BYTES), size=size)
    assert refusal.value.reason is Reason.INFERENCE_UNAVAILABLE


async def test_nothing_after_another_id_is_passed_on_where_that_is_refused():
    def refuse():
        raise Refusal(Reason.UNEXPECTED_MODEL)

    async def pieces():
        yield b'{"time":1,'
        yield b'"resolved_model":{"model_id":"globex/1"},"predictions":[1]}'

    passing = with_known_ids(pieces(), KNOWN, refuse)
    assert await anext(passing) == b'{"time":1,'
    with pytest.raises(Refusal):
        await anext(passing)


names = st.one_of(st.text(max_size=3), st.sampled_from(("model_id", '"model_id', '\\"model_id')))
values = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(), st.sampled_from(("acme/1", "globex/1", "model_id"))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(max_size=3), st.just("model_id"), st.just('"model_id')), inner, max_size=3
        ),
    ),
    max_leaves=12,
)


def blanked(value):
    """The same by parsing: each text of a member `model_id` that is not known is empty."""
    if isinstance(value, dict):
        return {
            name: "" if name == "model_id" and isinstance(one, str) and one not in KNOWN else blanked(one)
            for name, one in value.items()
        }
    return [blanked(one) for one in value] if isinstance(value, list) else value


@given(value=values, size=st.integers(1, 40), is_ascii=st.booleans())
async def test_of_any_document_the_ids_alone_are_changed(value, size, is_ascii):
    text = json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    assert json.loads((await passed(text, size=size)).decode("utf-8", "surrogatepass")) == blanked(value)
