from __future__ import annotations

import pytest

from gateway.model.toml_lines import DocumentLines

TEXT = """\
title = "top"
[models]
own = [
  "a/b",
  'it"s/x',
]  # "a/c"
public = ["a/c"]

[models . aliases]
"a/latest" = "a/b"

[[grants]]
models = ["x"]
[[ grants ]]
models = ["y",
  "x"]
"""


@pytest.mark.parametrize(
    ("asked", "nth", "line"),
    [
        (("", "title"), 0, 1),
        (("models",), 0, 2),
        (("models", "own"), 0, 3),
        (("models", "own", "a/b"), 0, 4),
        (("models", "own", 'it"s/x'), 0, 5),
        (("models", "public", "a/c"), 0, 7),
        (("models", "aliases"), 0, 9),
        (("models.aliases", "a/latest"), 0, 10),
        (("grants",), 0, 12),
        (("grants",), 1, 14),
        (("grants", "models", "x"), 0, 13),
        (("grants", "models", "x"), 1, 16),
        (("models", "missing"), 0, 2),
        (("models.groups", "vision"), 0, 2),
        (("nowhere", "nothing"), 0, 1),
    ],
)
def test_a_place_is_found_or_the_nearest_above_it(asked, nth, line):
    assert DocumentLines(TEXT).find(*asked, nth=nth) == line
