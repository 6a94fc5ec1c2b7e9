"""What a worker of `cachegate serve` runs: the gateway's own application, and the administration beside it.

The admin API has a listener of its own unless the settings put it on the public one. The tenants' own routes
are always on the public one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.admin.face import AdminFace
from gateway.assembly.app import Worker, parse_argument
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.reader import DirectoryReader
from gateway.directory.reading.uncached import PlainFacts
from gateway.identity.pepper import load_peppers
from gateway.operations.session import OperatorSession
from gateway.server.worker import WorkerApp

if TYPE_CHECKING:
    from gateway.assembly.pipeline import Pipeline
    from gateway.configuration.settings import Settings


def worker_session(pipeline: Pipeline) -> OperatorSession:
    """The session that a command would open, over what the worker has open already."""
    source = PlainFacts(pipeline.store)
    unreadable = pipeline.telemetry.unreadable
    return OperatorSession(
        settings=pipeline.settings,
        store=pipeline.store,
        directory=DirectoryReader(pipeline.store, source, on_unreadable=unreadable, clock=pipeline.clock),
        listing=Listing(source, on_unreadable=unreadable),
        peppers=load_peppers(pipeline.settings.pepper_folder),
        history=pipeline.history,
        clock=pipeline.clock,
        actor=f"worker:{pipeline.name}",
        _registrar=pipeline.registrar,
    )


def administered(settings: Settings, redis_url: str) -> tuple[Worker, AdminFace]:
    """A worker whose public routes have those of tenants, and the admin API if the settings say so."""
    worker = Worker(settings, redis_url)
    pipeline = worker.pipeline
    session = worker_session(pipeline)
    confirm = pipeline.guard.confirm
    own = AdminFace(session, pipeline.catalogue, pipeline.clock, confirm, is_own=True)
    face = AdminFace(session, pipeline.catalogue, pipeline.clock, confirm)
    worker.add(own.routes(), own.public_routes())
    if settings.admin_public:
        worker.add(face.routes(), face.public_routes())
    return worker, face


def worker_app(argument: Any) -> WorkerApp:
    """What a worker process runs; called in it with the settings and the URL of the Redis server."""
    settings, redis_url = parse_argument(argument)
    worker, face = administered(settings, redis_url)
    # The feed is where the admin API is as well, so that one address serves an operator's commands.
    beside = [*face.routes(), *worker.feed.face.routes()]
    admin = None if settings.admin_public else worker.app_of(beside, face.public_routes())
    return WorkerApp(
        app=worker.app(),
        report=worker.pipeline.report,
        on_refused=worker.refused_early,
        at_once=worker.at_once(),
        on_replacing=worker.pipeline.note_hang,
        on_stopping=worker.feed.close,
        admin=admin,
    )
