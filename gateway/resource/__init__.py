"""Locate a resource: parse a raw request path into names, and open the named file once access was allowed.

`paths` parses names and never reads the disk. `catalogue` reads the disk and never parses a path. Both use
the engine's own rules: `naming` (the directory of a model id), `manifest` (the files of a package) and
`safe_open` (open a file without following a link that we did not compute).
"""
