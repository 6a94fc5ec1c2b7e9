"""Where the parts meet: the only place that builds the pipeline. Nothing is decided here.

`fittings` makes what workers and commands need alike, with `signing` and `credential_marks`. `pipeline`
builds all that decides and records, and `upkeep` and `canary` keep it alive; `app` puts HTTP in front of
it, with `engine_faces` and `hook_routes`.
"""
