"""The composition root: the only place that builds the pipeline. Nothing is decided here.

`components` makes what workers and commands both need, with `signing` and `credential_marks`. `pipeline`
builds everything that decides and records; `upkeep`, `canary` and `stamp_watch` run beside requests; `app`
adds HTTP, with `engine_faces` and `hook_routes`.
"""
