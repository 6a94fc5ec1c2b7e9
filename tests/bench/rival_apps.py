"""Two guards as they are written in Python today. Runs in the rivals' environment, without our code.

    python rival_apps.py dependency|middleware PORT CONFIG

`dependency` is the way that FastAPI's documentation shows: a dependency checks the key, `FileResponse` sends.
`middleware` has the shape of a guard that is in use on a hosted platform: a function under
`@app.middleware("http")` before all routes, with answers cached for a while; small files come from memory.
Both look keys up by their hash and do nothing else: no audit log, no policies, no revocation.
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
from fastapi.responses import FileResponse, JSONResponse, Response  # type: ignore[import-not-found]
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer  # type: ignore[import-not-found]

MAX_MEMORY_BYTES = 1 << 20
TTL_SECONDS = 60.0
ROUTE = "/v1/models/{model:path}/-/{package}/{file}"

KEYS: dict[str, str] = {}  # digest of a key -> its tenant
FILES: dict[tuple[str, str, str], str] = {}  # model, package, file -> path
BODIES: dict[tuple[str, str, str], bytes] = {}

bearer = HTTPBearer(auto_error=False)


def find_tenant(token: str) -> str | None:
    """Whose key this is."""
    return KEYS.get(sha256(token.encode()).hexdigest())


async def authenticated(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
    """The tenant of a request; 401 without one."""
    tenant = find_tenant(credentials.credentials) if credentials else None
    if tenant is None:
        raise HTTPException(status_code=401)
    return tenant


def dependency_app() -> Any:
    """A dependency and `FileResponse`."""
    app = FastAPI()

    @app.get(ROUTE)  # type: ignore[untyped-decorator,unused-ignore]
    async def read(
        model: str, package: str, file: str, _tenant: Annotated[str, Depends(authenticated)]
    ) -> Any:
        place = FILES.get((model, package, file))
        if place is None:
            raise HTTPException(status_code=404)
        return FileResponse(place)

    return app


def middleware_app() -> Any:
    """A function before all routes, with a cache."""
    app = FastAPI()
    known: dict[str, tuple[float, str | None]] = {}

    async def check(request: Any, call_next: Any) -> Any:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        until, tenant = known.get(token, (0.0, None))
        if until < time.monotonic():
            tenant = find_tenant(token)
            known[token] = (time.monotonic() + TTL_SECONDS, tenant)
        if tenant is None:
            return JSONResponse({"detail": "Unauthorized"}, status_code=401)
        return await call_next(request)

    check.__annotations__["request"] = Request
    app.middleware("http")(check)

    @app.get(ROUTE)  # type: ignore[untyped-decorator,unused-ignore]
    async def read(model: str, package: str, file: str) -> Any:
        name = model, package, file
        if name in BODIES:
            return Response(BODIES[name], media_type="application/octet-stream")
        if name not in FILES:
            raise HTTPException(status_code=404)
        return FileResponse(FILES[name])

    return app


def main() -> None:
    """Serve until told to stop."""
    shape, port, config = sys.argv[1:]
    told = json.loads(Path(config).read_text())
    KEYS.update({sha256(token.encode()).hexdigest(): tenant for token, tenant in told["keys"].items()})
    for path, place in told["files"].items():
        model, _, rest = path.removeprefix("/v1/models/").partition("/-/")
        package, _, file = rest.partition("/")
        FILES[model, package, file] = place
        if Path(place).stat().st_size <= MAX_MEMORY_BYTES:
            BODIES[model, package, file] = Path(place).read_bytes()
    app = dependency_app() if shape == "dependency" else middleware_app()
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(port),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
