"""Cachegate: authorizes and audits every read of a shared model and blob cache.

Start reading at `guard.py`, the pipeline; `assembly/` builds it, `model/` defines its values.
"""

__version__ = "0.1.0"
