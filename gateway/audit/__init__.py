"""Write, verify and read the audit log: a tamper-evident, hash-chained record of each decision.

`AuditLog` (`log.py`) is the entry point for writing: it takes decisions and returns receipts.
`record.py` defines the schema and the canonical form of a record, `writer.py` appends to the chain and
recovers from faults, `head.py` signs how far the chain goes, and `heads_file.py` lists the signed heads of
all chains. `promise.py` bounds how much may be unsigned, and `recovery.py` closes the chains of killed
processes. For readers: `verify.py` verifies a copy of the folder, `events.py` follows and searches it,
`proof_search.py` proves one record alone, which `proof.py` checks without the log. `schema.py`
publishes what is in a record. `key_changes.py` replaces the signing key; `heads_copy.py` and `anchors.py`
hold against whoever has that key.
"""

from gateway.audit.events import Event, Query, find_record, read_events
from gateway.audit.limits import Durability, Limits
from gateway.audit.log import AuditLog
from gateway.audit.report import ChainReport, Damage, Ending, Fault, Verdict, VerifyReport
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
    "Verdict",
    "VerifyReport",
    "find_record",
    "read_events",
    "verify",
]
