"""Checks of an installation, each a list of findings: what was checked, its state, and what to do."""
