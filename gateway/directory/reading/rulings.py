"""Which of the platform's rulings is in force: one that has not expired, and that no younger ending ends.

A ruling or a standing that does not parse counts as absent. An ending that does not parse could concern any
ruling, so no ruling that it could end is in force.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING

from gateway.directory.reading.read_set import ReadSet
from gateway.directory.records import names
from gateway.directory.records.codec import decode_ending, decode_ruling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.names import KeyId, ModelId
    from gateway.model.ports import FactSource
    from gateway.model.rulings import Ruling


def names_of_ruling(key_id: KeyId, model: ModelId | None, *, of_links: bool = False) -> list[bytes]:
    """Return the ruling's name, then the names of all endings that could end it.

    With `of_links`, the ruling on a model is the record of the links that were minted.
    """
    if of_links and model is not None:
        return [names.links_fact(key_id, model), *_endings(key_id, model)]
    return [names.ruling_fact(key_id, model), *_endings(key_id, model)]


def ruling_in_force(
    read_set: ReadSet, key_id: KeyId, model: ModelId | None, now: float, *, of_links: bool = False
) -> Ruling | None:
    """Return the ruling on this key and model, if it is in force, from records that have been read."""
    ruling_name, *ending_names = names_of_ruling(key_id, model, of_links=of_links)
    ruling = read_set.decoded(ruling_name, partial(decode_ruling, key_id=key_id, model=model))
    ended_at = _ended_at(read_set, ending_names)
    return ruling if ruling is not None and now < ruling.until and ended_at <= ruling.asked else None


async def find_ruling(
    source: FactSource, key_id: KeyId, model: ModelId | None, now: float, *, of_links: bool = False
) -> Ruling | None:
    """Read these records, and return the ruling on this key and model if it is in force."""
    read_set = ReadSet(source)
    await read_set.fetch(names_of_ruling(key_id, model, of_links=of_links))
    return ruling_in_force(read_set, key_id, model, now, of_links=of_links)


async def is_overtaken(source: FactSource, key_id: KeyId, model: ModelId | None, asked: int) -> bool:
    """Whether an ending is younger than the question."""
    read_set = ReadSet(source)
    await read_set.fetch(_endings(key_id, model))
    return _ended_at(read_set, _endings(key_id, model)) > asked


def is_overtaken_now(source: FactSource, key_id: KeyId, model: ModelId | None, asked: int) -> bool | None:
    """As `is_overtaken`, from memory alone; None where the endings have to be read."""
    read_set, ending_names = ReadSet(source), _endings(key_id, model)
    if not read_set.fetch_now(ending_names):
        return None
    return _ended_at(read_set, ending_names) > asked


def _ended_at(read_set: ReadSet, ending_names: Sequence[bytes]) -> float:
    """The generation of the youngest ending. One that does not parse is younger than everything."""
    endings = [read_set.decoded(name, decode_ending) for name in ending_names]
    if any(name in read_set.unreadable for name in ending_names):
        return inf
    return max((ending for ending in endings if ending is not None), default=0)


def _endings(key_id: KeyId, model: ModelId | None) -> list[bytes]:
    endings = [names.ending_fact(None), names.ending_fact(key_id, is_key=True)]
    return endings if model is None else [*endings, names.ending_fact(model)]
