"""What a handler sees of the decision: the caller, what was decided about, and the receipt.

    @app.post("/infer/{model:path}")
    def infer(admitted: Annotated[Admitted, Depends(admitted)]) -> Prediction: ...     # FastAPI
    decided = admitted(request)                                                        # Starlette

A handler uses these values and not those of the request: they are what was decided about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

# FastAPI reads the annotation when the app is built.
from starlette.requests import HTTPConnection  # noqa: TC002

from gateway.credential.extract import extract
from gateway.middleware.in_app.run import RUN, Run
from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from gateway.model.access import Action, Principal, Resource
    from gateway.model.names import ModelId
    from gateway.model.verdicts import Receipt


class Admitted(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An admitted request. The receipt is closed by the guard, never by a handler."""

    receipt: Receipt

    @property
    def principal(self) -> Principal:
        """The caller: its key's id, tenant and scopes."""
        return self.receipt.admission.allowed.access.principal

    @property
    def action(self) -> Action:
        """What was permitted."""
        return self.receipt.admission.allowed.access.action

    @property
    def resource(self) -> Resource:
        """What it was permitted for, by the names of the request."""
        return self.receipt.admission.allowed.access.resource

    @property
    def model(self) -> ModelId:
        """The model's canonical id: an alias is resolved. Raises `Misconfigured` on a route without one."""
        model = self.receipt.admission.allowed.model
        if model is None:
            raise Misconfigured(self.receipt.admission.request.route, "this route is about no model")
        return model

    @property
    def record_id(self) -> str:
        """The id of the record that the decision has in the audit log."""
        return self.receipt.record_id

    @property
    def client(self) -> str:
        """The caller's address, as the guard sees it: that of a trusted proxy's client."""
        return self.receipt.admission.request.client

    def secret(self) -> str:
        """The key or token of the request, for `guarded_loading`. Never log it (I8)."""
        request = self.receipt.admission.request
        return extract(request.headers, request.query).secret


def admitted(connection: HTTPConnection) -> Admitted:
    """The decision about this request. Raises `Misconfigured` where none was made: the route is unguarded."""
    run: Run | None = connection.scope.get(RUN)
    if run is None:
        raise Misconfigured(
            "admitted", "no decision was made about this request: declare the route, or do not ask here"
        )
    return Admitted(receipt=run.receipt)
