"""The protocol between the unmodified engine and its weights provider, as values.

`questions` and `request_headers` parse the engine's requests and say what of them is sent upstream; `answers`
parses the provider's answers and inserts our own links; `local_answers` makes the same answers from the
cache, through `packages` and `registry`. `urls` and `proxy_urls` handle the `/proxy?url=` form of requests.
`credential_hash` and `resolutions` read the engine's own cache of past answers.

Everything here is a pure function of its arguments: no socket, no file, no clock, no decision. The guard and
the faces decide who may see an answer, and which link gives access to what.
"""
