from __future__ import annotations

import json

import pytest

from gateway.terminal.escaping import escape_controls, escape_controls_in_json

HOSTILE = ["\x1b[31mred", "\x9b31m", "line\nbreak", "\rover", "\u202eevil", "\x07", "\u2028", "\U000e0001tag"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_character_that_a_terminal_obeys_is_left(text):
    assert escape_controls(text).isprintable()
    assert escape_controls(text) != text


def test_readable_text_of_any_script_stays_as_it_is():
    assert escape_controls("acme/модель/1 ü 猫") == "acme/модель/1 ü 猫"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_line_of_json_keeps_its_value_and_loses_its_power(text):
    line = json.dumps({"model": text}, ensure_ascii=False)
    assert json.loads(escape_controls_in_json(line)) == {"model": text}
    assert escape_controls_in_json(line).isprintable()
