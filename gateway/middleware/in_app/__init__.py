"""The guard in front of somebody else's ASGI app: what `gateway.middleware` offers to other people.

guard.py        `GuardMiddleware`, the one that they mount
declared.py     what they declare of their routes
paths.py        one spelling of each path, and templates that are matched as the app's router matches them
taken.py        which of its routes the app will take
run.py          one run of the app for one request, whatever the guard decides meanwhile
lifespan.py     the guard is started and ended with the app
running.py      what the process has to offer: the guard and what belongs to it
admitted.py     what a handler sees of the decision
cache_file.py   the response with the file that was decided about
"""
