"""Workflows on an inference server: what one will load and do is known and authorised before it runs.

A workflow is a document that names blocks of the server, which run models, ask other hosts, read files and
execute code. The server itself says what a document will load and do, without running any of it.

    specification (one text) → the server describes it → needs → (the guard decides and records) → run

What is looked at, remembered and run is one and the same text, which refers to nothing outside itself.
"""
