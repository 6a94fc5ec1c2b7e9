"""What the gateway reads of a request is what the real handler then does, whoever may do it.

Here are the stages alone (match, read, write), without a guard: so more requests come through, and each kind
of route is tried with each kind of place.
"""

from __future__ import annotations

from collections import Counter

import pytest
from gateways import PROBES, SERVICE_KEY
from http_client import send
from hypothesis import given
from random_requests import examples, requests
from tenants_models import ALIASES, CARS, CHILD

from gateway.front_door.values import Answering
from gateway.front_door.writing import write
from gateway.model.errors import Refusal
from gateway.model.names import TenantId
from tests.inference_requests import inquire, wire

pytestmark = pytest.mark.server

EXAMPLES = 250
TOKENS = {"one": "a-key-of-a-tenant", "other": "another-key-of-a-tenant"}
SECRET = bytes(range(32))
BEHIND = ALIASES | {CHILD: CARS}
"""What only the provider knows: it is no business of the stages."""


@pytest.fixture(scope="module")
def tally():
    counted = Counter()
    yield counted
    assert counted["used"] > EXAMPLES // 8, counted


def stages(request):
    """The inquiry of a request and what would be sent for it. Raises `Refusal`."""
    path, _, query = request.target.partition("?")
    head = wire(request.method, path, query, request.headers)
    inquiry = inquire(head, request.body)
    if inquiry.matched.route.answering not in (Answering.PASS, Answering.MODELS):
        return inquiry, None
    more = {"key": SERVICE_KEY, "tenant": TenantId("acme"), "secret": SECRET, "images": ()}
    return inquiry, write(inquiry, head, **more)


def test_the_handler_uses_the_models_and_the_key_that_were_read(upstream, tally):
    notes = upstream.server.notes

    @examples(EXAMPLES)
    @given(request=requests(TOKENS))
    def law(request):
        try:
            inquiry, outbound = stages(request)
        except Refusal as refusal:
            tally[refusal.reason] += 1
            return
        if outbound is None:
            return
        (token,) = request.keys
        assert inquiry.credential is not None
        notes.mark()
        body = request.body if outbound.body is None and request.body else outbound.body
        headers = tuple((name.decode(), value.decode("latin-1")) for name, value in outbound.headers)
        answer = send(upstream.server.url, outbound.method, outbound.target.decode(), body, headers)
        # A gateway of another test asks this server for its health now and then.
        (received,) = [note for note in notes.requests() if note.path not in PROBES]
        if (
            outbound.body is None
        ):  # the legacy route's image, which passes as it came: no handler reads a key there
            assert token not in f"{outbound.target!r}{outbound.headers!r}"
        else:
            assert token not in repr(received.values)
        used = notes.all("add", "load", "infer")
        tally["used" if used else answer.status] += 1
        for note in used:
            assert note.key in (SERVICE_KEY, None), note
            known = {*inquiry.models, *(BEHIND.get(one) for one in inquiry.models)}
            assert note.model in known, (note, inquiry.models)
        reported = (answer.header("x-model-id") or "").split(",")
        assert {one for one in reported if one} <= inquiry.reported

    law()
