"""The guard in front of somebody else's ASGI app: what `gateway.middleware` offers to other people.

`GuardMiddleware` (`guard.py`) is the one that they mount, over routes that they declare (`declared.py`) in
paths that the guard and the app's router read alike (`paths.py`, `taken.py`). It runs the app once for each
request (`run.py`), and lives with it (`lifespan.py`) on what the process offers (`running.py`). A handler
sees the decision (`admitted.py`), and answers with the file that it was about (`cache_file.py`).
"""
