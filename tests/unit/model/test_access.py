from __future__ import annotations

from msgspec.structs import replace

from tests import samples


def test_a_later_tenant_of_the_name_is_somebody_else():
    caller = samples.principal()
    assert caller.whose == caller.tenant
    of_records = [replace(caller, tenant_record=f"ten_00000000000{end}").whose for end in "AB"]
    assert len({caller.whose, *of_records}) == 3
    assert replace(caller, tenant=None, tenant_record=None).whose is None
