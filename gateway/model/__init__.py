"""The values that all stages share: names, facts, accesses, verdicts, errors; and the Protocols between them.

Stages pass each other these values and never import each other. Everything outside the process is declared
here as a Protocol (`ports.py`, `stores.py`), implemented in `adapters/` and wired in `assembly/`.
"""
