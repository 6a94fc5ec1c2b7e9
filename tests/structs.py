"""Structs for Hypothesis, which reads the annotations of what it builds; ours name types of checkers only."""

from __future__ import annotations


def made(struct):
    """A constructor without annotations."""

    def make(*positional, **fields):
        return struct(*positional, **fields)

    return make
