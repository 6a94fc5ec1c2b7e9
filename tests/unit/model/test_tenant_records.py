from __future__ import annotations

import pytest

from gateway.model.errors import BadNameError
from gateway.model.tenant_records import new_record_id, parse_tenant_record_id


def test_each_record_has_an_id_of_its_own():
    made = {new_record_id() for _ in range(1000)}
    assert len(made) == 1000
    assert {parse_tenant_record_id(one) for one in made} == made


@pytest.mark.parametrize(
    "text",
    ["", "acme", "ten_", "ten_0123456789a", "ten_0123456789abc", "ten_0123456789a ", "TEN_0123456789ab"],
)
def test_anything_else_is_none(text):
    with pytest.raises(BadNameError):
        parse_tenant_record_id(text)
