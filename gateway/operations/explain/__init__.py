"""Explain whether a key may have a resource, and what would have to change, as values."""
