"""Have httpcore find out once, and not with every lock, that `sniffio` is not installed.

httpcore 1.0 imports it each time that it makes a lock or an event, half a dozen times a request. Python does
not remember that a module is missing: each of these imports looks through all folders of `sys.path`. anyio
no longer brings sniffio along. Without it httpcore uses asyncio, as we do.
"""

from __future__ import annotations

import importlib.util
import sys

NAME = "sniffio"


def remember() -> None:
    """Note that it is missing, if it is. `None` in `sys.modules` makes an import fail at once (PEP 328)."""
    if NAME not in sys.modules and importlib.util.find_spec(NAME) is None:
        sys.modules[NAME] = None  # type: ignore[assignment]  # the documented way, which typeshed leaves out
