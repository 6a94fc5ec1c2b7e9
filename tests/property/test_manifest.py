"""The law of a manifest's names: those that any file system would confuse are refused, and no others."""

from __future__ import annotations

import json
from itertools import combinations
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model.errors import Refusal
from gateway.resource import manifest as manifest_module
from gateway.resource import slices as slices_module
from gateway.resource.manifest import parse_manifest

SEGMENTS = st.sampled_from(["a", "A", "b", "a-", "a.b", "A.b", "aa", "a_"])
HANDLES = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)


def confuses(one, other):
    """By the definition, and not by the way in which it is found out."""
    folders = [name.split("/") for name in (one, other)]
    shorter = min(map(len, folders))
    if one.lower() == other.lower():
        return True
    for depth in range(1, shorter + 1):
        first, second = ("/".join(parts[:depth]) for parts in folders)
        if first.lower() != second.lower():
            return False
        if first != second or depth in map(len, folders):
            return True  # one folder in two spellings, or a file where the other has a folder
    return False


@given(handles=st.lists(HANDLES, max_size=12), size=st.sampled_from([1, 2, 3, 1000]))
@settings(deadline=None)
def test_a_manifest_is_refused_exactly_when_two_of_its_names_could_be_one(handles, size):
    raw = json.dumps({"package_artifacts": [{"file_handle": one} for one in handles]}).encode()
    with (
        patch.object(manifest_module, "SLICE_FILES", size),
        patch.object(slices_module, "SORTED_AT_ONCE", size),
    ):
        if any(confuses(one, other) for one, other in combinations(handles, 2)):
            with pytest.raises(Refusal):
                parse_manifest(raw)
        else:
            manifest = parse_manifest(raw)
            assert [one.handle for one in manifest.artifacts] == sorted(handles)
            assert all(manifest.find(one).handle == one for one in handles)


DIGESTS = st.sampled_from([f"{number:032x}" for number in range(3)])


@given(digests=st.lists(DIGESTS, max_size=40), size=st.sampled_from([1, 3, 1000]))
@settings(deadline=None)
def test_a_digest_is_found_with_the_first_of_its_files_in_their_order(digests, size):
    listed = [{"file_handle": f"f{number:02}", "md5_hash": one} for number, one in enumerate(digests)]
    raw = json.dumps({"package_artifacts": listed[::-1]}).encode()
    with patch.object(slices_module, "SORTED_AT_ONCE", size):
        manifest = parse_manifest(raw)
    for digest in {*digests, "f" * 32}:
        expected = [one["file_handle"] for one in listed if one["md5_hash"] == digest]
        found = [one.handle for one in manifest.linking(digest)]
        assert found == expected[: manifest_module.MAX_LINKS_OF_A_BLOB]
