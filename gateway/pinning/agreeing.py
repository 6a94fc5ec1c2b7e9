"""Agree on what many blobs hold, where one of them may spoil that: it is told apart, and costs no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.errors import CachegateError, Misconfigured, Refusal, Unavailable
from gateway.resource.unservable import finding_of, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.names import Md5
    from gateway.model.pins import Ledger, Measured

    Trouble = tuple[Md5, str]
    """A blob, and why nothing could be done about it, in one line."""


async def agree_on_all(ledger: Ledger, contents: Sequence[tuple[Md5, Measured]]) -> list[Trouble]:
    """Agree on all at once; where that fails for one of them, on each by itself. The ones that failed.

    Raises `Unavailable` for what fails for all: the facts, or the audit log; and `Misconfigured`.
    """
    try:
        await ledger.agree(contents)
    except (Unavailable, Misconfigured):
        raise
    except Exception:  # noqa: BLE001 -- one of them, whatever it raises: which one is found out below
        return [trouble for one in contents if (trouble := await _trouble_with(ledger, one)) is not None]
    return []


async def _trouble_with(ledger: Ledger, one: tuple[Md5, Measured]) -> Trouble | None:
    try:
        await ledger.agree([one])
    except (Unavailable, Misconfigured):
        raise
    except Exception as trouble:  # noqa: BLE001 -- that blob's trouble
        return one[0], why(trouble)
    return None


def why(trouble: Exception) -> str:
    """What is wrong with a file, in one line that can be printed."""
    match trouble:
        case Refusal():
            return finding_of(trouble)
        case Unavailable():
            return trouble.why
        case CachegateError():
            return str(trouble)
    return f"{type(trouble).__name__}: {printable(str(trouble))}"
