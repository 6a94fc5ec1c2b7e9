"""Workflows through the front door: what one will load and do is authorised before it runs.

    POST {mount}/workflows/run, POST {mount}/infer/workflows

The server that will run a workflow is chosen by the digest of its text, as models are by their id, so that the
models of one workflow stay on one server. It is asked what the workflow will load and do; all of that is
decided and recorded; then the same text is sent to the same server, and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.adapters.inference_server import InferenceFailed
from gateway.faces.front_door import Request
from gateway.front_door.workflows.inputs import read_inputs
from gateway.front_door.workflows.needs import find_needs
from gateway.front_door.workflows.running import Run, read_order, write_run
from gateway.front_door.workflows.specification import read_specification, refused
from gateway.model.access import OWN_SERVER_ONLY
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import Scope
from gateway.model.routes import Needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.adapters.inference_server import UpstreamAnswer
    from gateway.front_door.servers import Server
    from gateway.front_door.values import Inquiry, Outbound
    from gateway.front_door.workflows.needs import Needs
    from gateway.model.access import Principal
    from gateway.model.names import TenantId
    from gateway.model.routes import Asked


class WorkflowRequest(Request):
    """One request to run a workflow: a `Forwarding`."""

    _run: Run | None = None
    _chosen: Server | None = None

    def ask(self, body: bytes | None) -> Asked:
        """What the request asks for, which is found out once its caller is known. Raises `Refusal`."""
        asked = super().ask(body)
        inquiry = self._inquiry
        if inquiry is None or not isinstance(inquiry.document, dict):
            raise TypeError("nothing was asked")
        order = read_order(inquiry.document)
        specification = read_specification(inquiry.document.get("specification"))
        inputs, images = read_inputs(inquiry.document.get("inputs"), specification)
        self._run = Run(specification=specification, inputs=inputs, images=images, order=order)
        return replace(asked, find_needed=self._find_needed)

    async def _find_needed(self, principal: Principal) -> Needed:
        """Have the server describe the workflow, and say what it needs. Raises `Refusal`."""
        if principal.tenant is None or self._run is None or self._inquiry is None:
            raise Refusal(Reason.NOT_PERMITTED)
        if Scope.INFER not in principal.scopes:
            raise Refusal(Reason.MISSING_SCOPE)
        run = self._run
        server = self._chosen = self._door.servers.choose(run.specification.digest.hex(), principal.tenant)
        workload = await self._door.describer.describe(server, run.specification, principal)
        needs = find_needs(workload, run.specification, run.inputs, self._door.table)
        self._verify(needs, principal, server)
        self._inquiry = replace(self._inquiry, models=needs.models, reported=frozenset(needs.models))
        return Needed(
            models=needs.models,
            projects=needs.projects,
            actions=needs.actions,
            told={
                action: f"The tenant is not allowed {action}, which these steps need: {', '.join(steps)}."
                for action, steps in needs.steps.items()
            },
        )

    def _verify(self, needs: Needs, principal: Principal, server: Server) -> None:
        """Refuse what no rule can permit on this server or with the operator's key."""
        if needs.projects and not principal.is_of_platform:
            raise refused(Reason.OPERATORS_PROJECT, f"The project: {needs.projects[0]}.")
        shared = sorted(OWN_SERVER_ONLY.intersection(needs.actions))
        if shared and server.tenant != principal.tenant:
            told = f"It needs {', '.join(shared)}: {', '.join(needs.steps[shared[0]])}."
            raise refused(Reason.SHARED_SERVER, told)

    async def _ask(self, principal: Principal, inquiry: Inquiry) -> UpstreamAnswer:
        """Send the workflow that was described, with its inputs."""
        run, server = self._run, self._chosen
        if inquiry.credential is None or principal.tenant is None or run is None or server is None:
            raise Refusal(Reason.NOT_PERMITTED)
        key = self._key(principal, inquiry.credential)
        images: Sequence[str] = ()
        if run.images:
            urls = [image.url for image in run.images]
            images = await self._door.images.fetch(urls, principal.image_hosts, tenant=principal.tenant)
        accept = self._request.header(b"accept")
        outbound = write_run(run, key=key, images=images, accept=accept)
        return await self._send_to(server, outbound, principal.tenant)

    async def _send_to(self, server: Server, outbound: Outbound, tenant: TenantId) -> UpstreamAnswer:
        """Send it to the one server that described it. Another one may make something else of it."""
        self._server, self._sent_at = server, self._door.clock.monotonic()
        self._heard_at = self._sent_at
        use = self._use.enter_context(server.in_use(tenant))
        try:
            answer = await self._door.client.send(server.url, outbound)
        except InferenceFailed as failure:
            self._note_failure(use, failure)
            self._door.describer.forget(server)
            raise Refusal(Reason.INFERENCE_UNAVAILABLE) from failure
        use.succeeded()
        self._heard_at = self._door.clock.monotonic()
        return answer
