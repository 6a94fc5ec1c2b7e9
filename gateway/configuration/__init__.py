"""The operator's settings: `settings` declares each, `values` parses their text, `sources` loads them."""
