"""The gateway as a plain ASGI application, for other ASGI servers.

    uvicorn gateway.asgi:app
    hypercorn gateway.asgi:app
    granian --interface asgi gateway.asgi:app

It gives the same answers and writes the same records, but is slower: files are sent in chunks, and nothing is
answered from within the parser. The limits of our own server (request heads, slow requests, stalled readers)
and the number of processes are up to the other server; each process is a worker of the fleet. There is no
supervisor and no ops listener; the admin API is served here with `CACHEGATE_ADMIN_PUBLIC=on`, and nowhere
otherwise. No embedded Valkey is started: set `CACHEGATE_REDIS_URL`, and run `cachegate init` and `policy
apply` before.

Importing this module reads the settings and opens the audit log; therefore no other module imports it.
"""

from __future__ import annotations

from gateway.adapters.redis_url import verify_local_files
from gateway.admin.worker import administered
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
    return administered(settings, settings.redis_url)[0].app()


app = _app()
