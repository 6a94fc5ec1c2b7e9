"""An app of somebody else's, with the guard in front. The tests of the middleware run it under real servers.

It has what such apps have: dependencies, a lifespan, exception handlers, middleware on both sides of the
guard, included routers, background tasks, streams, and routes that nobody declared.
"""

import asyncio
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from gateway.inprocess.app import Cachegate
from gateway.middleware import (
    Admitted,
    CacheFile,
    GuardMiddleware,
    admitted,
    blob_route,
    caller_route,
    file_route,
    model_in_json,
    model_route,
    unguarded_route,
)

MARKS = Path(os.environ["MARKS"])  # noqa: TID251 -- where this app leaves what the tests look for
FILES = "/files/{model:path}/-/{package}/{file:path}"
Decided = Annotated[Admitted, Depends(admitted)]
ROUTES = [
    unguarded_route("/open"),
    unguarded_route("/ready"),
    unguarded_route("/socket"),
    unguarded_route("/peek"),
    file_route(FILES),
    blob_route("/blobs/{md5}"),
    model_route("/infer/{model:path}", max_body_bytes=1 << 20),
    model_route("/infer", model=model_in_json("model_id"), max_body_bytes=1 << 20),
    model_route("/stream/{model:path}", methods=["GET"]),
    model_route("/later/{model:path}"),
    model_route("/sendfile/{model:path}", methods=["GET"]),
    model_route("/slow/{model:path}"),
    model_route("/thread/{model:path}"),
    model_route("/teapot/{model:path}", methods=["GET"]),
    model_route("/broken/{model:path}", methods=["GET", "HEAD"]),
    model_route("/stubborn/{model:path}", methods=["GET"]),
    model_route("/routed/{model:path}", methods=["GET"]),
    caller_route("/me"),
]


class TeapotError(Exception):
    pass


@asynccontextmanager
async def lifespan(_app):
    (MARKS / "started").touch()
    yield {"from_lifespan": "yes"}
    (MARKS / "ended").touch()


def mark(name):
    with (MARKS / name).open("a") as file:
        file.write("x")


def build(*, is_wrapped=False, **more):
    cachegate = Cachegate()
    app = FastAPI(lifespan=lifespan)
    app.add_middleware(GZipMiddleware, minimum_size=1 << 30)  # inside the guard
    if not is_wrapped:
        app.add_middleware(GuardMiddleware, process=cachegate, routes=ROUTES, **more)
    app.add_middleware(CORSMiddleware, allow_origins=["https://app.example"])  # outside of it
    router = APIRouter()

    @app.get("/open")
    async def open_to_all():
        return {"open": True}

    @app.get("/ready")
    async def ready():
        return cachegate.readiness()

    @app.get("/peek")
    async def peek(request: Request):
        admitted(request)

    @app.get("/undeclared")
    async def undeclared():
        mark("undeclared")
        return {"leak": True}

    @app.api_route(FILES, methods=["GET", "HEAD"])
    async def file(decided: Decided, tasks: BackgroundTasks):
        return CacheFile(decided)

    @app.api_route("/blobs/{md5}", methods=["GET", "HEAD"])
    async def blob(decided: Decided):
        return CacheFile(decided)

    @app.post("/infer/{model:path}/classes")  # more special than a declared one, and not declared
    async def classes(model: str):
        mark("classes")
        return {"leak": model}

    @app.post("/infer/{model:path}")
    async def infer(model: str, request: Request, decided: Decided):
        mark("infer")
        size = len(await request.body())
        return {**facts(decided), "path": model, "size": size, "state": request.state.from_lifespan}

    @app.post("/infer")
    async def infer_json(body: dict, decided: Decided):
        return {**facts(decided), "body": body}

    @app.get("/stream/{model:path}")
    async def stream(decided: Decided):
        async def pieces():
            try:
                while True:
                    yield b"piece\n" * 64
                    await asyncio.sleep(0.01)
            finally:
                mark("stream-ended")

        return StreamingResponse(pieces(), media_type="text/plain")

    @app.post("/later/{model:path}")
    async def later(decided: Decided, tasks: BackgroundTasks):
        async def task():
            while not (MARKS / "go").exists():
                await asyncio.sleep(0.01)
            mark("task-done")

        tasks.add_task(task)
        return facts(decided)

    @app.get("/sendfile/{model:path}")
    async def sendfile(decided: Decided):
        return FileResponse(MARKS / "payload")

    @app.post("/slow/{model:path}")
    async def slow(decided: Decided):
        mark("slow-runs")
        while not (MARKS / "slow-goes-on").exists():
            await asyncio.sleep(0.01)
        return facts(decided)

    @app.post("/thread/{model:path}")
    def thread(decided: Decided):
        mark("slow-runs")
        while not (MARKS / "slow-goes-on").exists():
            time.sleep(0.01)
        return facts(decided)

    @app.get("/teapot/{model:path}")
    async def teapot(decided: Decided):
        raise TeapotError

    @app.exception_handler(TeapotError)
    async def short_and_stout(_request, _error):
        return JSONResponse({"teapot": True}, status_code=418)

    @app.api_route("/broken/{model:path}", methods=["GET", "HEAD"])
    async def broken(decided: Decided):
        raise ZeroDivisionError

    @router.get("/routed/{model:path}/more")
    async def more_special(model: str):
        mark("more")
        return {"leak": model}

    @router.get("/routed/{model:path}")
    async def routed(decided: Decided):
        return facts(decided)

    @app.get("/me")
    async def me(decided: Decided):
        return {"tenant": decided.principal.tenant, "process": os.getpid()}

    @app.websocket("/socket")
    async def socket(websocket: WebSocket):
        await websocket.accept()
        await websocket.close()

    @app.websocket("/other")
    async def other(websocket: WebSocket):
        await websocket.accept()
        await websocket.close()

    app.include_router(router)
    return app, cachegate


def facts(decided):
    return {
        "model": decided.model,
        "tenant": decided.principal.tenant,
        "record": decided.record_id,
        "client": decided.client,
        "action": decided.action,
    }


app, _ = build()
app_with_sockets, _ = build(websockets="pass")

_plain, _wrapping = build(is_wrapped=True)
wrapped = GuardMiddleware(_plain, process=_wrapping, routes=ROUTES)

_inner, _inner_cachegate = build()


@asynccontextmanager
async def outer_lifespan(_app):
    async with _inner_cachegate.running():
        yield {"from_lifespan": "outer"}


def hello(_request):
    return PlainTextResponse("outer")


outer = Starlette(routes=[Route("/outer", hello), Mount("/inner", app=_inner)], lifespan=outer_lifespan)
forgotten = Starlette(routes=[Mount("/inner", app=build()[0])])  # nobody starts the guard
