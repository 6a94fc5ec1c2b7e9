"""Pure ASGI middleware, one file each, and what other people put in front of an app of their own.

    from gateway.inprocess.app import Cachegate
    from gateway.middleware import CacheFile, GuardMiddleware, file_route

    app.add_middleware(GuardMiddleware, process=Cachegate(), routes=[file_route("/files/...")])

The names below are that public surface; `in_app/` implements it. Everything else here is our own server's.
"""

from gateway.middleware.in_app.admitted import Admitted, admitted
from gateway.middleware.in_app.cache_file import CacheFile
from gateway.middleware.in_app.declared import (
    AppRoute,
    RequestHead,
    blob_route,
    caller_route,
    file_route,
    model_in_json,
    model_route,
    unguarded_route,
)
from gateway.middleware.in_app.guard import GuardMiddleware
from gateway.model.access import Principal
from gateway.model.verdicts import Receipt

__all__ = [
    "Admitted",
    "AppRoute",
    "CacheFile",
    "GuardMiddleware",
    "Principal",
    "Receipt",
    "RequestHead",
    "admitted",
    "blob_route",
    "caller_route",
    "file_route",
    "model_in_json",
    "model_route",
    "unguarded_route",
]
