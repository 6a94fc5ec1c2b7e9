"""Builds the front door of a worker: the servers, the client that reaches them, and the route.

Without an inference server in the settings there is none of it.
"""

from __future__ import annotations

import hmac
from functools import partial
from typing import TYPE_CHECKING

from gateway.adapters.image_fetch import ImageFetcher
from gateway.adapters.inference_server import InferenceClient
from gateway.configuration.service_key import load_service_key
from gateway.faces.front_door import FrontDoor, route_of
from gateway.faces.workflows import BlocksRequest, WorkflowRequest
from gateway.front_door.dependencies import Dependencies
from gateway.front_door.servers import Servers
from gateway.front_door.table import SERVER_VERSIONS, load_table
from gateway.front_door.values import Answering
from gateway.front_door.workflows.blocks import BlockAnswers
from gateway.front_door.workflows.describer import Describer
from gateway.front_door.workflows.saved import Saved
from gateway.identity.pepper import load_peppers

if TYPE_CHECKING:
    from gateway.assembly.pipeline import Pipeline
    from gateway.faces.route import FaceRoute

_IMAGE_LABEL = b"cachegate: names of images in inference servers, version 1"


def front_door_routes(pipeline: Pipeline) -> list[FaceRoute]:
    """The route of the front door; none without an inference server."""
    settings = pipeline.settings
    if not settings.inference_url:
        return []
    servers, client = Servers(settings.inference_url, pipeline.clock), InferenceClient()
    images = ImageFetcher()
    upkeep = pipeline.upkeep
    upkeep.more_chores += (("inference-servers", partial(client.check_forever, servers.all)),)
    upkeep.at_the_end = (client.close, images.close, *upkeep.at_the_end)
    pepper = load_peppers(settings.pepper_folder).current
    dependencies = saved = None
    if pipeline.provider is not None:
        dependencies = Dependencies(pipeline.provider, pipeline.clock)
        pipeline.sweep(dependencies.memory)
        saved = Saved(pipeline.provider, pipeline.clock)
        pipeline.sweep(saved.memory)
    table = load_table(SERVER_VERSIONS[-1])
    describer = Describer(client, pipeline.clock, pipeline.telemetry, table.version)
    pipeline.sweep(describer.memory)
    blocks = BlockAnswers()
    pipeline.sweep(blocks.memory)
    door = FrontDoor(
        mount=settings.inference_mount.encode("ascii"),
        max_body_bytes=settings.inference_max_body_megabytes << 20,
        origins=settings.inference_origins,
        table=table,
        servers=servers,
        client=client,
        service_key=load_service_key(settings),
        secret=hmac.digest(pepper.secret, _IMAGE_LABEL, "sha256"),
        may_infer=pipeline.guard.inferable,
        images=images,
        dependencies=dependencies,
        describer=describer,
        saved=saved,
        block_answers=blocks,
        requests={Answering.WORKFLOW: WorkflowRequest, Answering.BLOCKS: BlocksRequest},
        is_ready=lambda: pipeline.facts.is_leased() and any(one.is_available for one in servers.all),
        clock=pipeline.clock,
        telemetry=pipeline.telemetry,
    )
    return [route_of(door)]
