"""Keep the audit folder within bounds: pack closed segments, and remove old ones with a signed note.

`keeper.py` is the entry point: one round of it. It runs in a process of its own, never in a worker.
"""
