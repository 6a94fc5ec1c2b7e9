"""Audit records as events of OCSF (Open Cybersecurity Schema Framework), for a SIEM that reads that form.

`to_ocsf` (`mapping.py`) makes one event of one record, of every kind. What an event has in common with all
others is in `event.py`; `requests.py` maps what was asked for and decided, `changes.py` what was changed,
`upkeep.py` what the gateway says of itself and of its log.

The event keeps the proof: `raw_data` is what the record's hash covers, `raw_data_hash` that hash.
"""

from gateway.audit.ocsf.event import OCSF_VERSION
from gateway.audit.ocsf.mapping import to_ocsf

__all__ = ["OCSF_VERSION", "to_ocsf"]
