"""Two guards as they are written in Python today. Runs in the rivals' environment, without our code.

    python rival_apps.py dependency|middleware PORT CONFIG

`dependency` is the way that FastAPI's documentation shows: a dependency checks the key.
`middleware` has the shape of a guard that is in use on a hosted platform: a function under
`@app.middleware("http")` before all routes, with answers cached for a while.
Both have the routes of the gateway, and give its answers: the same status, headers and body for the same
request, which are in the configuration. They take each from memory with one lookup, and send the large files
by `FileResponse`. Keys are looked up by their hash. There is nothing else: no audit log, no policies, no
revocation.
"""

from __future__ import annotations

import json
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import uvicorn  # type: ignore[import-not-found,unused-ignore]  # the rivals' own
from fastapi import Depends, FastAPI, HTTPException, Request  # type: ignore[import-not-found]
from fastapi.responses import FileResponse, Response  # type: ignore[import-not-found]
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer  # type: ignore[import-not-found]

TTL_SECONDS = 60.0
ROUTES = (
    "/v1/models",
    "/v1/models/{model:path}/-/{package}/{file}",
    "/v1/models/{model:path}/-/{package}",
    "/v1/models/{model:path}",
    "/v1/blobs/{md5}",
    "/v1/whoami",
    "/models/v1/external/weights",
    "/models/v1/external/stat",
    "/d/{model:path}/-/{package}/{file}",
)

Kept = tuple[int, dict[str, str], bytes]  # status, headers, body
KEYS: dict[str, str] = {}  # digest of a key, or of a link's signature -> its tenant
LARGE: dict[str, str] = {}  # path of a request -> path of a file
ANSWERS: dict[tuple[str, str, str, str, str], Kept] = {}  # tenant, method, target, range, etag
REFUSALS: dict[str, Kept] = {}

bearer = HTTPBearer(auto_error=False)


def find_tenant(token: str) -> str | None:
    """Whose key, or link, this is."""
    return KEYS.get(sha256(token.encode()).hexdigest())


def made(kept: Kept) -> Response:
    """One of the answers in memory."""
    status, headers, body = kept
    return Response(body, status_code=status, headers=headers)


def refused(name: str) -> Response:
    """One of the answers that do not depend on the request."""
    return made(REFUSALS[name])


async def read(request: Request) -> Response:
    """Every route: one lookup."""
    path, query, headers = request.url.path, request.url.query, request.headers
    if path in LARGE:
        return FileResponse(LARGE[path])
    target = f"{path}?{query}" if query else path
    conditions = headers.get("range", ""), headers.get("if-none-match", "")
    kept = ANSWERS.get((request.state.tenant, request.method, target, *conditions))
    return refused("hidden") if kept is None else made(kept)


async def no_route(_request: Request, _error: Exception) -> Response:
    """What no route is for."""
    return refused("no_route")


def with_routes(app: FastAPI) -> FastAPI:
    """Add all of them."""
    for route in ROUTES:
        app.add_api_route(route, read, methods=["GET", "HEAD"])
    app.add_exception_handler(404, no_route)
    return app


async def authenticated(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> None:
    """The tenant of a request; 401 without one."""
    token = credentials.credentials if credentials else request.query_params.get("sig", "")
    tenant = find_tenant(token)
    if tenant is None:
        raise HTTPException(status_code=401, detail="unknown_key" if token else "no_key")
    request.state.tenant = tenant


def dependency_app() -> FastAPI:
    """A dependency of every route."""
    app = FastAPI(dependencies=[Depends(authenticated)])

    async def unauthorized(_request: Request, error: Any) -> Response:
        return refused(error.detail)

    app.add_exception_handler(401, unauthorized)
    return with_routes(app)


def middleware_app() -> FastAPI:
    """A function before all routes, with a cache."""
    app = FastAPI()
    known: dict[str, tuple[float, str | None]] = {}

    @app.middleware("http")  # type: ignore[untyped-decorator,unused-ignore]
    async def check(request: Request, call_next: Any) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        token = token or request.query_params.get("sig", "")
        until, tenant = known.get(token, (0.0, None))
        if until < time.monotonic():
            tenant = find_tenant(token)
            known[token] = (time.monotonic() + TTL_SECONDS, tenant)
        if tenant is None:
            return refused("unknown_key" if token else "no_key")
        request.state.tenant = tenant
        return await call_next(request)

    return with_routes(app)


def load(config: Path) -> None:
    """Take keys, files and answers from the configuration."""
    told = json.loads(config.read_text())
    KEYS.update({sha256(token.encode()).hexdigest(): tenant for token, tenant in told["keys"].items()})
    LARGE.update(told["large"])
    bodies = [text.encode("latin-1") for text in told["bodies"]]

    def kept(one: Any) -> Kept:
        status, headers, body = one
        return status, headers, bodies[body]

    ANSWERS.update({tuple(key): kept(one) for key, one in told["answers"]})
    REFUSALS.update({name: kept(one) for name, one in told["refusals"].items()})


def main() -> None:
    """Serve until told to stop."""
    shape, port, config = sys.argv[1:]
    load(Path(config))
    uvicorn.run(
        dependency_app() if shape == "dependency" else middleware_app(),
        host="127.0.0.1",
        port=int(port),
        loop="uvloop",
        http="httptools",
        access_log=False,
        server_header=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
