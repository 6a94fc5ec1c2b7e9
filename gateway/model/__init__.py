"""The vocabulary every room shares: names, facts, access, verdicts, errors. Standard library only.

Stages hand each other values from here and never import each other. Whatever touches the outside
is declared here as a Protocol (`ports.py`), implemented in `adapters/` and wired in `assembly/`.
"""
