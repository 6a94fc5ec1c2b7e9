"""How many examples a law is tried with, where it needs another number than the usual hundred."""

from __future__ import annotations

from hypothesis import settings


def examples(number: int) -> int:
    """As many of this number as the profile in force has of a hundred: `make test` tries a quarter."""
    return max(1, number * settings.default.max_examples // 100)
