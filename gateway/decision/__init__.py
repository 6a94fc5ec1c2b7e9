"""The decision room: an Access, the Facts about it and the Cedar rules make Allowed or Denied.

The door is `Rulebook` (`rulebook.py`). `policyset.py` reads and checks a folder of rules, `cases.py`
runs the cases that stand beside them, `explain.py` tells a person why an answer is what it is. No
I/O but reading a policy folder; no clock; `cedar.py` is the one importer of cedarpy.
"""

from gateway.decision.rulebook import Rulebook

__all__ = ["Rulebook"]
