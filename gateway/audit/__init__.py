"""Record: decisions in, durable and chained records down, receipts out.

The door is `AuditLog` (`log.py`). `record.py` has the schema and the canonical form of a record,
`writer.py` keeps the chain going through faults, `head.py` signs how far it came, `heads_file.py` lists
that for all chains together. `promise.py` says how much may be unsigned, and `recovery.py` what becomes
of it when a process was killed. For readers: `verify.py` proves a copy of the folder, `events.py`
follows and searches it.
"""

from gateway.audit.events import Event, Query, find_record, read_events
from gateway.audit.limits import Durability, Limits
from gateway.audit.log import AuditLog
from gateway.audit.report import ChainReport, Damage, Ending, Fault, Report, Verdict
from gateway.audit.verify import verify

__all__ = [
    "AuditLog",
    "ChainReport",
    "Damage",
    "Durability",
    "Ending",
    "Event",
    "Fault",
    "Limits",
    "Query",
    "Report",
    "Verdict",
    "find_record",
    "read_events",
    "verify",
]
