from __future__ import annotations

import pytest

from gateway.configuration.sources import load_settings
from gateway.model.check_prefixes import CheckPrefix
from gateway.model.errors import Misconfigured


def load(text):
    return load_settings({"CACHEGATE_CHECK_PREFIXES": text}).check_prefixes


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("/files=/v1/models", [("/files", "/v1/models")]),
        ("/files=/v1/models, /b=/v1/blobs", [("/files", "/v1/models"), ("/b", "/v1/blobs")]),
        ("/=/v1/models", [("", "/v1/models")]),
        ("/cg=/", [("/cg", "")]),
        ("/a=/v1/models,/ab=/v1/blobs", [("/a", "/v1/models"), ("/ab", "/v1/blobs")]),
    ],
)
def test_prefixes_are_pairs(text, pairs):
    assert load(text) == tuple(CheckPrefix(of_proxy=one, of_gateway=other) for one, other in pairs)


@pytest.mark.parametrize(
    "text",
    [
        "/files",
        "=",
        "files=/v1/models",
        "/files/=/v1/models",
        "/files=/v1/../models",
        "/fi%6Ces=/v1/models",
        "/files=/v1/models,/files=/v1/blobs",
        "/files=/v1/models,/files/b=/v1/blobs",
        "/=/v1/models,/b=/v1/blobs",
    ],
)
def test_what_is_no_pair_or_could_be_read_in_two_ways_stops_the_start(text):
    with pytest.raises(Misconfigured, match="CACHEGATE_CHECK_PREFIXES"):
        load(text)
