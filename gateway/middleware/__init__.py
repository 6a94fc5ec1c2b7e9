"""Pure ASGI middleware, one file each. `guard.py` is the one that others mount in front of their own app."""
