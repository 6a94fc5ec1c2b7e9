"""The gateway as a plain ASGI application, for servers that are not ours.

    uvicorn gateway.asgi:app
    hypercorn gateway.asgi:app
    granian --interface asgi gateway.asgi:app

It answers the same, record by record, with less speed: files go out by chunks, nothing is answered
from within the parser, and what our own server bounds (heads, slow requests, readers that fall
silent) is the other server's business. So is how many processes there are; each is a worker of the
fleet. There is no supervisor and no ops listener, and nobody starts an embedded Valkey:
`CACHEGATE_REDIS_URL` names the server, and `cachegate init` and `policy apply` come before.

Importing this module reads the settings and opens the audit log, which is why no other module does.
"""

from __future__ import annotations

from gateway.adapters.redis_url import verify_local_files
from gateway.assembly.app import Worker
from gateway.configuration.sources import load_settings
from gateway.model.errors import Misconfigured
from gateway.operations.state_folder import verify_state


def _app() -> object:
    settings = load_settings()
    if settings.redis_url is None:
        raise Misconfigured(
            "CACHEGATE_REDIS_URL",
            "is not set, and only `cachegate serve` starts an embedded server; name one",
        )
    verify_state(settings)
    verify_local_files(settings.redis_url)
    return Worker(settings, settings.redis_url).app()


app = _app()
