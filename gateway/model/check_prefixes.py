"""Where a proxy that asks first has our paths, as the operator names it."""

from __future__ import annotations

import msgspec


class CheckPrefix(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the proxy serves below one path is what the gateway has below another. The root is empty."""

    of_proxy: str
    of_gateway: str
