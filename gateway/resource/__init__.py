"""Locate: from a raw path to a name, and, once access was allowed, from a name to an open file.

`paths` reads names off the wire and looks at no disk. `catalogue` looks at the disk and reads no
path. Between them stand the engine's own rules: `naming` (which directory a model id has),
`manifest` (which files a package has) and `safe_open` (how to open one without following a link
that we did not compute).
"""
