"""How durable an audit record is once it is written."""

from __future__ import annotations

from enum import StrEnum


class Durability(StrEnum):
    """What a record survives once the call has returned."""

    PROCESS = "process"  # the end of our process, in whatever way
    POWER = "power"  # a power failure
