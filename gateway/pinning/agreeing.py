"""Agree on the content of many blobs at once, so that one bad blob does not affect the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.errors import CachegateError, Misconfigured, Refusal, Unavailable
from gateway.resource.unservable import finding_of, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.names import Md5
    from gateway.model.pins import Measured
    from gateway.pinning.ledger import PinLedger

    Trouble = tuple[Md5, str]
    """A blob, and in one line why it could not be processed."""


async def agree_on_all(ledger: PinLedger, contents: Sequence[tuple[Md5, Measured]]) -> list[Trouble]:
    """Agree on all blobs in one call; if that fails for one of them, on each by itself. Returns the failures.

    Raises `Unavailable` for failures that affect all (the facts, or the audit log), and `Misconfigured`.
    """
    try:
        await ledger.agree(contents)
    except (Unavailable, Misconfigured):
        raise
    except Exception:  # noqa: BLE001 -- whatever it is: which blob caused it is determined below
        return [trouble for one in contents if (trouble := await _trouble_with(ledger, one)) is not None]
    return []


async def _trouble_with(ledger: PinLedger, one: tuple[Md5, Measured]) -> Trouble | None:
    try:
        await ledger.agree([one])
    except (Unavailable, Misconfigured):
        raise
    except Exception as trouble:  # noqa: BLE001 -- it affects that blob only
        return one[0], why(trouble)
    return None


def why(trouble: Exception) -> str:
    """What is wrong with a file, in one printable line."""
    match trouble:
        case Refusal():
            return finding_of(trouble)
        case Unavailable():
            return trouble.why
        case CachegateError():
            return str(trouble)
    return f"{type(trouble).__name__}: {printable(str(trouble))}"
