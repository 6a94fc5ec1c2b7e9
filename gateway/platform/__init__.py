"""The platform beside us: what it says of keys and models, and for how long that counts.

`stat` is its word on one key and one model. `authority` makes a fact of it, for the whole fleet once
(`asking`), and `settling` holds a decision back until there is one. `invalidation` and `retractions` end
what it takes back. `upstream` is its word on what a model consists of, for one caller, and `shares` keeps
one key from asking for all.
"""
