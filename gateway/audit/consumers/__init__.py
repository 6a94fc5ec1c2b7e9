"""The consumers of the log: who they are, how far each is, and how records get to them.

`registry.py` holds who they are; `delivery.py` is the loop of one consumer, and `runner.py` runs one each,
in a process of its own. How a target is spoken to is the business of adapters.
"""
