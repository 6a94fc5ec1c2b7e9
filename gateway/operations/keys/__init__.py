"""What operators do with keys: make, change, rotate, revoke, find out whose they are, and report on them."""
