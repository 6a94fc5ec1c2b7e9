"""Decide an access by Cedar policies: an Access and the Facts about it become Allowed or Denied.

`Rulebook` (`rulebook.py`) is the entry point. `policyset.py` reads and validates a policy folder, `cases.py`
runs the test cases that belong to a policy set, `explain.py` explains a decision to an operator. No I/O but
reading a policy folder; no clock; `cedar.py` is the only importer of cedarpy.
"""

from gateway.decision.rulebook import Rulebook

__all__ = ["Rulebook"]
