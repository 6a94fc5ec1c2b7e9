from __future__ import annotations

import json

from gateway.decision import cedar
from gateway.decision.entities import sample_entities


def test_everything_that_a_request_can_bring_fits_the_shipped_schema(shipped):
    assert cedar.find_entity_error(shipped.schema, json.dumps(sample_entities())) is None
