"""An app that serves files of the shared cache to those who may read them."""

from typing import Annotated

from fastapi import Depends, FastAPI

from gateway.inprocess.app import Cachegate
from gateway.middleware import Admitted, CacheFile, GuardMiddleware, admitted, file_route

FILES = "/files/{model:path}/-/{package}/{file:path}"

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
app.add_middleware(GuardMiddleware, process=Cachegate(), routes=[file_route(FILES)])


@app.api_route(FILES, methods=["GET", "HEAD"])
async def file(decided: Annotated[Admitted, Depends(admitted)]) -> CacheFile:
    """The file that was decided about, whatever the path says."""
    return CacheFile(decided)
