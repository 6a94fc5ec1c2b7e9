"""The guard: every read of the shared caches passes here, in this order, and nowhere else (I4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.credential.extract import extract
from gateway.model.access import Access, Action, WireRequest
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.verdicts import Admission, Denied, Ending, Outcome, Receipt, Rejection
