"""Checks of an installation, each a list of findings: what was looked at, how it is, what to do."""
