"""Explain: may this key have this thing, and what would have to change, as values."""
