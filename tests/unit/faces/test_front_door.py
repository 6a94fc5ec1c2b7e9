from __future__ import annotations

import pytest

from gateway.faces.front_door import RESERVED, is_reserved
from gateway.model.errors import Reason
from gateway.problems import PROBLEMS


@pytest.mark.parametrize(
    "path", [b"/v1/3", b"/%761/3", b"/v%31", b"//v1/3", b"/.well-known/x", b"/models", b"/admin/"]
)
def test_a_first_segment_of_ours_is_reserved_however_it_is_written(path):
    assert is_reserved(path)


@pytest.mark.parametrize("path", [b"/v2/3", b"/acme/1", b"/infer/lmm", b"/model/registry", b"/%2576/1", b"/"])
def test_other_first_segments_are_not(path):
    assert not is_reserved(path)


def test_the_hint_lists_what_is_reserved():
    assert all(name in PROBLEMS[Reason.RESERVED_PATH].detail for name in RESERVED)
