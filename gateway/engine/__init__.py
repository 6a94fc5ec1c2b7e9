"""What the unmodified engine and its weights provider say to each other, as values.

`questions` and `request_headers` read what the engine asks and say what of it goes upstream;
`answers` reads what the provider says and puts our own links in; `local_answers` says the same from
what lies on disk, through `packages` and `registry`. `urls` and `proxy_urls` are the other way in,
`/proxy?url=`. `credential_hash` and `resolutions` read the engine's own memory of past answers.

Everything here is a pure function of its arguments: no socket, no file, no clock, no decision. Who
may see an answer, and which link opens what, is for the guard and the faces.
"""
