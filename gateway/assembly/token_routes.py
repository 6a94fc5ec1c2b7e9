"""Builds the routes that make access tokens and tell about them; none without a public URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.faces import tokens
from gateway.identity.introspection import Introspection

if TYPE_CHECKING:
    from gateway.assembly.pipeline import Pipeline
    from gateway.faces.route import FaceRoute
    from gateway.model.routes import PublicRoute


def token_routes(pipeline: Pipeline) -> tuple[list[FaceRoute], list[PublicRoute]]:
    """The routes for callers with a key, and those for everybody."""
    if pipeline.tokens is None:
        return [], []
    introspection = Introspection(pipeline.token_authenticator, pipeline.authenticator)
    face = tokens.TokenFace(pipeline.tokens, introspection)
    return tokens.routes(face), tokens.public_routes(face)
