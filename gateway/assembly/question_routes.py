"""Builds the routes that answer questions about access."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.faces import authzen

if TYPE_CHECKING:
    from gateway.assembly.pipeline import Pipeline
    from gateway.faces.route import FaceRoute
    from gateway.model.routes import PublicRoute


def question_routes(pipeline: Pipeline) -> tuple[list[FaceRoute], list[PublicRoute]]:
    """The routes for callers with a key, and the one for everybody."""
    face = authzen.AuthzenFace(pipeline.questions, pipeline.telemetry.questioned)
    return authzen.routes(face), authzen.public_routes(pipeline.settings.public_url)
