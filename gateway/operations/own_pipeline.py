"""Run the pipeline of a worker in a process that is not one of our server's.

For the fleet it is one more worker: revocations wait for it, and its decisions are in a chain of its own. It
starts on the same terms as `cachegate serve`, and raises the same errors.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

from gateway.adapters.embedded_valkey import RunningValkey
from gateway.assembly.pipeline import Pipeline
from gateway.operations.session import fact_server, open_session, verify_rights
from gateway.operations.setup import ensure_policy
from gateway.operations.state_folder import verify_state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.configuration.settings import Settings


@asynccontextmanager
async def own_pipeline(settings: Settings) -> AsyncIterator[Pipeline]:
    """The pipeline, built and running. Without a Redis URL it joins the embedded server, or starts it."""
    verify_state(settings)
    server = fact_server(settings)
    watched = server.watched() if isinstance(server, RunningValkey) else nullcontext()
    async with server as url:
        with watched:
            async with open_session(settings) as session:  # verifies the pepper
                await verify_rights(session)
                await ensure_policy(session)
            # It does not keep the audit folder within bounds, which takes a process of its own.
            pipeline = Pipeline(settings, url, keeps_audit=False)
            async with pipeline.running():
                yield pipeline
