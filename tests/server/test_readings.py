"""What the gateway reads of a request is what the real handler then does, whoever may do it.

Here are the stages alone (match, read, write), without a guard: so more requests come through, and each kind
of route is tried with each kind of place.
"""

from __future__ import annotations

from collections import Counter

import pytest
from gateways import PROBES, SERVICE_KEY
from http_client import send
from hypothesis import Phase, given
from msgspec.structs import replace
from random_requests import examples, requests
from tenants_models import ALIASES, CARS, CHILD

from gateway.front_door.values import Answering, Naming
from gateway.front_door.writing import write
from gateway.model.errors import Refusal
from tests.inference_requests import TABLE, inquire, wire

pytestmark = pytest.mark.server

EXAMPLES = 400
TOKENS = {"one": "a-key-of-a-tenant", "other": "another-key-of-a-tenant"}
SECRET = bytes(range(32))
BEHIND = ALIASES | {CHILD: CARS}
"""What only the provider knows: it is no business of the stages."""


@pytest.fixture(scope="module")
def tally():
    counted = Counter()
    yield counted
    used = {word: number for word, number in counted.items() if word.startswith("used")}
    assert sum(used.values()) > EXAMPLES // 8, counted
    assert len(used) > 12, counted  # routes


def stages(request, table):
    """The inquiry of a request and what would be sent for it. Raises `Refusal`."""
    path, _, query = request.target.partition("?")
    head = wire(request.method, path, query, request.headers)
    inquiry = inquire(head, request.body, table)
    if inquiry.matched.route.answering not in (Answering.PASS, Answering.MODELS):
        return inquiry, None
    more = {"key": SERVICE_KEY, "whose": "acme", "secret": SECRET, "images": ()}
    return inquiry, write(inquiry, head, **more)


def compare(upstream, request, table=TABLE):
    """What the handler does of what is read of a request by a table; what came of it, in a word."""
    try:
        inquiry, outbound = stages(request, table)
    except Refusal as refusal:
        return refusal.reason
    if outbound is None:
        return "ours"
    (token,) = request.keys_beside_body if outbound.body is None else request.keys
    assert inquiry.credential is not None
    notes = upstream.server.notes
    notes.mark()
    body = request.body if outbound.body is None and request.body else outbound.body
    headers = tuple((name.decode(), value.decode("latin-1")) for name, value in outbound.headers)
    answer = send(upstream.server.url, outbound.method, outbound.target.decode(), body, headers)
    # A gateway of another test asks this server for its health now and then.
    (received,) = [note for note in notes.requests() if note.path not in PROBES]
    if outbound.body is None:  # the legacy route's image passes as it came: no handler reads a key there
        assert token not in f"{outbound.target!r}{outbound.headers!r}"
    else:
        assert token not in repr(received.values)
    used = notes.all("add", "load", "infer")
    for note in used:
        assert note.key in (SERVICE_KEY, None), note
        known = {*inquiry.models, *(BEHIND.get(one) for one in inquiry.models)}
        assert note.model in known, (note, inquiry.models)
    reported = (answer.header("x-model-id") or "").split(",")
    assert {one for one in reported if one} <= inquiry.reported
    return f"used by {inquiry.matched.route.path}" if used else "not used"


def test_the_handler_uses_the_models_and_the_key_that_were_read(upstream, tally):
    @examples(EXAMPLES)
    @given(request=requests(TOKENS))
    def law(request):
        tally[compare(upstream, request)] += 1

    law()


# That the law finds what it is for. A wrong default is none of it: defaults are written into what is sent.


def changed_row(path, **changes):
    """The table in which one row reads something else."""
    routes = [replace(row, **changes) if row.path == path else row for row in TABLE.routes]
    assert routes != list(TABLE.routes)
    return replace(TABLE, routes=tuple(routes))


def changed_family(name, **changes):
    return replace(TABLE, families=TABLE.families | {name: replace(TABLE.families[name], **changes)})


WRONG = {
    "a fixed model taken for a member": (
        "/sam3/visual_segment",
        changed_row("/sam3/visual_segment", model=Naming.MEMBER, id=None, default="sam3/sam3_interactive"),
    ),
    "another family": ("/doctr/ocr", changed_row("/doctr/ocr", family="easy_ocr")),
    "another member of a family": ("/ocr/trocr", changed_family("trocr", member="doctr_version_id")),
    "a model that is always another": (
        "/sam3/embed_image",
        changed_row("/sam3/embed_image", id="sam3/sam3_final"),
    ),
    "stages taken for a member": (
        "/ocr/pp-ocr",
        changed_row("/ocr/pp-ocr", model=Naming.MEMBER, default="pp_ocr/tiny-tiny"),
    ),
    "a version taken for a member": (
        "/clip/embed_text",
        changed_row("/clip/embed_text", model=Naming.MEMBER, family=None, default="clip/RN50"),
    ),
    "an alias that is not known": ("/infer/classification", replace(TABLE, aliases={})),
    "a form of the id in the answer that is not known": (
        "/infer/embeddings",
        changed_row("/infer/embeddings", reported=()),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_row_that_reads_another_place_than_the_handler_is_found(upstream, name):
    form, table = WRONG[name]

    @examples(300, phases=[Phase.generate])
    @given(request=requests(TOKENS, (form,)))
    def law(request):
        compare(upstream, request, table)

    with pytest.raises((AssertionError, ExceptionGroup)):
        law()
