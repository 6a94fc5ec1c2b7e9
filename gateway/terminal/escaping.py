r"""Escape control characters in recorded text before it is printed on a terminal.

Names come from clients, from disks and from copies of logs that somebody may have prepared. A control
sequence in them could recolour a denial, move the cursor over it or set the window's title; a bidirectional
override could make one name read as another. Every character that is not printable is shown as its escape
(`\x1b`, `\u202e`).
"""

from __future__ import annotations

ASTRAL = 0x10000  # beyond it, JSON writes a character as two escapes


def escape_controls(text: object) -> str:
    """The text with every unprintable character escaped."""
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(one if one.isprintable() else _python_escape(one) for one in plain)


def escape_controls_in_json(line: str) -> str:
    """The same for a line of JSON, which keeps its value: such characters occur in strings only."""
    if line.isprintable():
        return line
    return "".join(one if one.isprintable() else _json_escape(one) for one in line)


def _python_escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _json_escape(character: str) -> str:
    code = ord(character)
    if code < ASTRAL:
        return f"\\u{code:04x}"
    high, low = divmod(code - ASTRAL, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
