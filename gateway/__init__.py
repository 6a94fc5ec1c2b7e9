"""Cachegate: the guard in front of a shared model and blob cache.

Start reading at `guard.py`, the pipeline; `assembly/` builds it, `model/` holds its vocabulary.
"""

__version__ = "0.1.0"
