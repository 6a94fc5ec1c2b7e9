"""The text of a value whose secret fields are not shown: for tracebacks and logs (I8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    import msgspec


def shown(value: msgspec.Struct, *, hidden: Collection[str]) -> str:
    """`Name(field=...)` of all fields but these."""
    fields = [f"{name}={getattr(value, name)!r}" for name in value.__struct_fields__ if name not in hidden]
    return f"{type(value).__name__}({', '.join(fields)})"
