"""Workflows through the front door: what one will load and do is authorised before it runs.

    POST {mount}/workflows/run, POST {mount}/{workspace}/workflows/{id}, ...

The server that will run a workflow is chosen by the digest of its text, as models are by their id, so that
the models of one workflow stay on one server. It is asked what the workflow will load and do; all of that is
decided and recorded; then the same text is sent to the same server, and nowhere else.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.adapters.inference_server import InferenceFailed
from gateway.faces.front_door import ForwardedRequest
from gateway.front_door import answers
from gateway.front_door.named_models import MEMBER_IN_WORKFLOWS
from gateway.front_door.workflows.asking import (
    Purpose,
    find_document,
    find_named,
    find_reference,
    may_remember,
    purpose_of,
    write_question,
)
from gateway.front_door.workflows.blocks import MAX_ANSWER_BYTES, read_question
from gateway.front_door.workflows.inputs import read_inputs
from gateway.front_door.workflows.needs import find_needs
from gateway.front_door.workflows.running import Run, read_order, write_run
from gateway.front_door.workflows.saved import names_saved
from gateway.front_door.workflows.specification import read_specification, refused
from gateway.model.access import OWN_SERVER_ONLY, Action
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import Scope
from gateway.model.routes import Needed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gateway.adapters.inference_server import UpstreamAnswer
    from gateway.front_door.servers import BalancedServer
    from gateway.front_door.values import InferenceRequest
    from gateway.front_door.workflows.blocks import BlockQuestion
    from gateway.front_door.workflows.needs import Needs
    from gateway.model.access import Principal
    from gateway.model.answers import Answer
    from gateway.model.inference import Outbound
    from gateway.model.names import TenantId
    from gateway.model.routes import Asked
    from gateway.model.verdicts import Receipt


class _ToOneServer(ForwardedRequest):
    """A request for the one server that was asked about it."""

    _names_model = MEMBER_IN_WORKFLOWS
    _chosen: BalancedServer | None = None

    async def _send_to(self, server: BalancedServer, outbound: Outbound, tenant: TenantId) -> UpstreamAnswer:
        """Send it there. Another server may make something else of it."""
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
        self._answer, self._heard_at = answer, self._door.clock.monotonic()
        return answer

    def _asked_about(self) -> InferenceRequest:
        if self._inquiry is None:
            raise TypeError("nothing was asked")
        return self._inquiry


class WorkflowRequest(_ToOneServer):
    """One request about a workflow: a `Forwarding`."""

    _document: Any = None  # a specification that names saved workflows
    _run: Run | None = None

    def ask(self, body: bytes | None) -> Asked:
        """What the request asks for, which is found out once its caller is known. Raises `Refusal`."""
        asked = super().ask(body)
        document = find_document(self._asked_about())
        if document is None or names_saved(document):
            self._document = document
        else:
            self._run = self._read_run(document)
        # A key that only the platform knows becomes known by a model that it may read.
        models = () if document is None else find_named(document)
        return replace(asked, models=models, find_needed=self._find_needed)

    def _read_run(self, document: Any) -> Run:
        """The workflow as one text, with what stands beside it in the request."""
        specification = read_specification(document)
        given = self._asked_about().document
        is_run = purpose_of(self._matched) is Purpose.RUN
        inputs, images = read_inputs(given.get("inputs") if is_run else {}, specification)
        order = read_order(given if is_run else {})
        return Run(specification=specification, inputs=inputs, images=images, order=order)

    async def _find_run(self, principal: Principal) -> Run:
        """The workflow, once what is saved elsewhere has been put in. Once for one request."""
        if self._run is None:
            inquiry = self._asked_about()
            if self._door.saved is None or not principal.is_of_platform or inquiry.credential is None:
                raise Refusal(Reason.SAVED_WORKFLOW)
            key, document, is_remembered = inquiry.credential.secret, self._document, may_remember(inquiry)
            if document is None:
                reference = find_reference(inquiry)
                document = await self._door.saved.fetch(reference, key, may_remember=is_remembered)
            document = await self._door.saved.resolve(document, key, may_remember=is_remembered)
            self._run = self._read_run(document)
        return self._run

    async def _find_needed(self, principal: Principal) -> Needed:
        """Have the server describe the workflow, and say what it needs. Raises `Refusal`."""
        if principal.tenant is None:
            raise Refusal(Reason.NOT_PERMITTED)
        if Scope.INFER not in principal.scopes:
            raise Refusal(Reason.MISSING_SCOPE)
        run = await self._find_run(principal)
        server = self._chosen = self._door.servers.choose(run.specification.digest.hex(), principal.tenant)
        workload = await self._door.describer.describe(server, run.specification, principal)
        needs = find_needs(workload, run.specification, run.inputs, self._door.table)
        verify_permissible(needs, principal, server)
        self._inquiry = replace(self._asked_about(), models=needs.models, reported=frozenset(needs.models))
        return Needed(
            models=needs.models,
            projects=needs.projects,
            actions=needs.actions,
            client_detail={
                action: f"The tenant is not allowed {action}, which these steps need: {', '.join(steps)}."
                for action, steps in needs.steps.items()
            },
        )

    async def _ask(self, principal: Principal, inquiry: InferenceRequest) -> UpstreamAnswer:
        """Send the workflow that was described, with its inputs."""
        run, server = self._run, self._chosen
        if inquiry.credential is None or principal.tenant is None or run is None or server is None:
            raise Refusal(Reason.NOT_PERMITTED)
        purpose = purpose_of(self._matched)
        if purpose is not Purpose.RUN:
            return await self._send_to(server, write_question(purpose, run.specification), principal.tenant)
        key = self._key(principal, inquiry.credential)
        images: Sequence[str] = ()
        if run.images:
            urls = [image.url for image in run.images]
            images = await self._door.images.fetch(urls, principal.image_hosts, tenant=principal.tenant)
        accept = self._request.header(b"accept")
        outbound = write_run(run, key=key, images=images, accept=accept)
        return await self._send_to(server, outbound, principal.tenant)


def verify_permissible(needs: Needs, principal: Principal, server: BalancedServer) -> None:
    """Refuse what no rule can permit on this server, or with the operator's key."""
    if needs.projects and not principal.is_of_platform:
        raise refused(Reason.OPERATORS_PROJECT, f"The project: {needs.projects[0]}.")
    if server.tenant == principal.tenant:
        return
    if needs.stateful_models:
        client_detail = (
            f"{needs.stateful_models[0]} keeps what it was told to look for. Ask it on its own route."
        )
        raise refused(Reason.SHARED_SERVER, client_detail)
    shared = sorted(OWN_SERVER_ONLY.intersection(needs.actions))
    if shared:
        client_detail = f"It needs {', '.join(shared)}: {', '.join(needs.steps[shared[0]])}."
        raise refused(Reason.SHARED_SERVER, client_detail)


class BlocksRequest(_ToOneServer):
    """One question about the blocks of a server: a `Forwarding`."""

    _question: BlockQuestion | None = None
    _process = ""

    def ask(self, body: bytes | None) -> Asked:
        """What the request asks for: any valid key may, but for definitions of custom Python."""
        asked = super().ask(body)
        self._question = read_question(self._asked_about())
        return replace(asked, find_needed=self._find_needed)

    async def _find_needed(self, principal: Principal) -> Needed:
        """Choose the server, one of a known version. Raises `Refusal`."""
        if principal.tenant is None or self._question is None:
            raise Refusal(Reason.NOT_PERMITTED)
        server = self._chosen = self._door.servers.choose(self._matched.route.path, principal.tenant)
        self._process = await self._door.describer.find_process(server, principal)
        if not self._question.has_python:
            return Needed(models=())
        if server.tenant != principal.tenant:
            raise Refusal(Reason.SHARED_SERVER)
        return Needed(models=(), actions=(Action.CUSTOM_PYTHON,))

    async def answer(self, receipt: Receipt) -> Answer:
        """The server's answer, or the same that it gave before."""
        question, server = self._question, self._chosen
        if question is None or server is None:
            raise TypeError("nothing was asked")
        if not question.is_the_same_for_all:
            return await super().answer(receipt)
        memory, place = self._door.block_answers.memory, (server.url, self._process, self._matched.route.path)
        known = memory.find(place)
        if known is None:
            if self._answer is None:
                principal = receipt.admission.allowed.access.principal
                self._answer = await self._while_client_stays(self._ask(principal, self._asked_about()))
            if self._answer.status != HTTPStatus.OK:
                return await super().answer(receipt)
            known = await self._read_whole(self._answer, MAX_ANSWER_BYTES)
            memory.put(place, known)
        return answers.json_answer(known)

    async def _ask(self, principal: Principal, inquiry: InferenceRequest) -> UpstreamAnswer:  # noqa: ARG002 -- as in `ForwardedRequest`
        if self._question is None or self._chosen is None or principal.tenant is None:
            raise Refusal(Reason.NOT_PERMITTED)
        return await self._send_to(self._chosen, self._question.outbound, principal.tenant)
