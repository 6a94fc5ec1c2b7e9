"""Cursors: one text for each, short, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from gateway.audit.index import Cursor, encode_cursor, parse_cursor
from gateway.audit.index.cursor import MAX_CURSOR_CHARACTERS

LARGEST = Cursor("n" * 63, "f" * 16, (1 << 53) - 1, (1 << 53) - 1, "a" * 32)


@pytest.mark.parametrize("cursor", [Cursor("n", "", 0), Cursor("n", "0" * 16, 7, 900, "b" * 32), LARGEST])
def test_a_cursor_reads_back(cursor):
    text = encode_cursor(cursor)
    assert parse_cursor(text) == cursor
    assert len(text) <= MAX_CURSOR_CHARACTERS
    assert text.replace(".", "").replace("-", "").replace("_", "").isalnum()


def test_no_changed_text_is_another_text_of_the_same_cursor():
    """A reader may compare texts; and what was cut or padded is no cursor."""
    text = encode_cursor(LARGEST)
    for at in range(len(text)):
        for one in "A_.~\n":
            changed = text[:at] + one + text[at + 1 :]
            try:
                assert parse_cursor(changed) != LARGEST or changed == text
            except ValueError:
                continue
    for wrong in ("", "c1.", text[:-1], text + "A", text + "=", " " + text, text * 3, "c2." + text[3:]):
        with pytest.raises(ValueError, match="cursor"):
            parse_cursor(wrong)


@pytest.mark.parametrize(
    "values",
    [
        ("no/node", "", 0, 0, ""),
        ("n", "x" * 16, 0, 0, ""),
        ("n", "", -1, 0, ""),
        ("n", "", 1 << 53, 0, ""),
        ("n", "", 0, -1, ""),
        ("n", "", 0, 0, "ab"),
    ],
)
def test_values_that_no_cursor_has_are_refused(values):
    with pytest.raises(ValueError, match="cursor"):
        Cursor(*values)
