"""An app that runs models for those who may infer with them, with the engine in the same process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import cv2
import numpy as np
from fastapi import Body, Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from inference_models.errors import BaseInferenceModelsError

from gateway.inprocess.app import Cachegate
from gateway.inprocess.loading import guarded_loading
from gateway.middleware import Admitted, GuardMiddleware, admitted, model_route

INFER = "/infer/{model:path}"


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Models are loaded by the guard's leave too, and up to eight are kept in memory."""
    with guarded_loading(max_instances=8) as loading:
        yield {"loading": loading}


app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
app.add_middleware(GuardMiddleware, process=Cachegate(), routes=[model_route(INFER, max_body_bytes=20 << 20)])


@app.post(INFER)
def infer(
    request: Request,
    decided: Annotated[Admitted, Depends(admitted)],
    image: Annotated[bytes, Body(media_type="image/png")],
) -> dict[str, Any]:
    """Classify an image with the model that was decided about."""
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    model = request.state.loading.from_pretrained(
        decided.model, api_key=decided.secret(), client=decided.client, device="cpu"
    )
    best = int(model(pixels).class_id[0])
    return {"model": decided.model, "class": model.class_names[best], "tenant": decided.principal.tenant}


@app.exception_handler(BaseInferenceModelsError)
def not_loaded(_request: Request, _error: Exception) -> JSONResponse:
    """The engine could not load it. If the key was revoked meanwhile, the guard answers 401 instead."""
    return JSONResponse({"error": "the model could not be loaded"}, status_code=502)
