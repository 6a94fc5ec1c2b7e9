"""What was used: reads, bytes and refusals by tenant, key, model and day, counted from the audit log.

`tally.py` counts records, `rollups.py` keeps the counts beside the index so that a question about a log of
millions reads some small files, and `figures.py` selects what a question is about.
"""

from gateway.audit.usage.figures import Figures, UsageQuery, figures_of
from gateway.audit.usage.rollups import UsageKeeper, UsageRollups
from gateway.audit.usage.tally import UsageDay, UsageTally

__all__ = [
    "Figures",
    "UsageDay",
    "UsageKeeper",
    "UsageQuery",
    "UsageRollups",
    "UsageTally",
    "figures_of",
]
