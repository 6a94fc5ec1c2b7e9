"""Delivery: sends what was admitted. What sends takes a `Receipt`, so only recorded reads go out (I5)."""
