"""The platform that owns keys and models: asking it who may read what, and how long its answers count.

`stat` asks about one key and one model. `authority` makes a fact of the answer, once for the whole fleet
(`asking`), and `confirmation` delays a decision until there is one. `invalidation` and `retractions` end
answers that the platform takes back. `upstream` asks what a model consists of, for one caller, and `shares`
limits how much one key may ask at once.
"""
