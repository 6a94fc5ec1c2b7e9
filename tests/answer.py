"""An HTTP response as a test gets it, whichever client read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One HTTP response, as it stood on the wire."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def record_id(self) -> str:
        """The audit record that the answer names."""
        record_id = self.header("cachegate-record")
        assert record_id is not None, f"an answer without a record: {self.status} {self.headers}"
        return record_id

    @property
    def is_cut(self) -> bool:
        """Whether the connection ended before the announced body did."""
        return len(self.body) < int(self.header("content-length") or 0)

    def json(self) -> Any:
        return json.loads(self.body)

    def comparable(self) -> tuple[object, ...]:
        """All that may not differ between "forbidden" and "absent": all but time, trace and record id."""
        record = self.header("cachegate-record") or ""
        varying = {"date", "traceparent"}
        headers = tuple(
            (key, value.replace(record, "R")) for key, value in self.headers if key not in varying
        )
        return self.status, headers, self.body.replace(record.encode(), b"R")
