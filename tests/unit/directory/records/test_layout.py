from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import msgspec
import pytest

from gateway import directory
from gateway.directory.records import layout
from gateway.model.facts import Scope


def kinds() -> list[type[layout.Row]]:
    """Every kind of record, whichever modules other tests have loaded."""
    for module in iter_modules(directory.__path__, f"{directory.__name__}."):
        import_module(module.name)
    return layout.Row.__subclasses__()


def test_every_kind_has_a_number_of_its_own():
    numbers = [kind.__struct_config__.tag for kind in kinds()]
    assert sorted(numbers) == list(range(1, len(kinds()) + 1))


def test_every_scope_has_a_bit_of_its_own():
    assert layout.SCOPE_BITS.keys() == set(Scope)
    assert len({bit for bit in layout.SCOPE_BITS.values() if bit.bit_count() == 1}) == len(Scope)


@pytest.mark.parametrize("raw", [b"", b"\xff", b"\x90", b"\x91\x05", b"\x96\x05\x01\x00\xa1\xff\xa1a\xa1a"])
def test_what_is_no_row_is_unreadable(raw):
    decoder = msgspec.msgpack.Decoder(layout.AliasRow)
    with pytest.raises(layout.UnreadableRecordError):
        layout.decode_row(decoder, raw)
