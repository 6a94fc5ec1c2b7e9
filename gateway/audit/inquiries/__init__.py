"""The questions that an investigator asks of a log, each answered by one reading of its records.

`readers.py`: who read a model, blob or file. `key_history.py`: all that a key did. `tenant_timeline.py`: what
happened to a tenant, in order. Each takes records one by one, of live and packed segments or of a copy, and
keeps sums, so that a log of any size needs little memory. What is not kept for want of room, an answer says.
"""

from gateway.audit.inquiries.key_history import KeyHistory, KeyReading
from gateway.audit.inquiries.readers import ReadQuestion, WhoRead
from gateway.audit.inquiries.tenant_timeline import TenantTimeline

__all__ = ["KeyHistory", "KeyReading", "ReadQuestion", "TenantTimeline", "WhoRead"]
