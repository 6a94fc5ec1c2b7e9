"""Process long lists in slices with pauses between them, so that other threads get the interpreter lock."""

from __future__ import annotations

from heapq import merge
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")

SORTED_AT_ONCE = 4_096  # about a millisecond


def no_pause() -> None:
    """The pause of callers that need not yield."""


def in_slices(items: Iterable[T], size: int, pause: Callable[[], None]) -> Iterator[T]:
    """The items, with a pause after each slice of them."""
    for number, item in enumerate(items, 1):
        yield item
        if number % size == 0:
            pause()


def sorted_in_slices(
    items: Sequence[T], *, key: Callable[[T], Any] | None = None, pause: Callable[[], None] = no_pause
) -> Iterator[T]:
    """The items sorted: slices are sorted and then merged."""
    slices = []
    for start in range(0, len(items), SORTED_AT_ONCE):
        slices.append(sorted(items[start : start + SORTED_AT_ONCE], key=key))  # type: ignore[type-var,arg-type]
        pause()
    return merge(*slices, key=key)  # type: ignore[arg-type]
