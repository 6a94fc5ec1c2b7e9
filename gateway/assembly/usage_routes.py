"""Builds the face of figures from the audit log of one worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.audit.index import IndexReader
from gateway.audit.usage import UsageRollups
from gateway.faces.usage import UsageFace

if TYPE_CHECKING:
    from gateway.assembly.pipeline import Pipeline
    from gateway.faces.route import FaceRoute


def usage_routes(pipeline: Pipeline) -> list[FaceRoute]:
    """The routes."""
    settings = pipeline.settings
    reader = IndexReader(settings.audit_folder, settings.node)
    rollups = UsageRollups(settings.audit_folder, reader)
    return UsageFace(settings.node, rollups, reader, pipeline.clock).routes()
