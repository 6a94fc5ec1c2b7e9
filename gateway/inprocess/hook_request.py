"""Turn the question of an engine's hook into a request that the guard can decide.

The guard takes a request and a declared route, so this module makes them: the key is put where a client would
send it, and `locate` parses the names, after authentication as everywhere. The engine passes on the tenant's
text: unverified, complete, and never normalised.

A path is no model id. The engine reads whatever exists on disk under the given name before it calls a hook,
from the current directory too, so a name that exists as a path is refused.
"""

from __future__ import annotations

import os

import msgspec

from gateway.model.access import Action, Resource, ResourceKind, WireRequest
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.hidden_fields import shown
from gateway.model.names import parse_model_id, parse_package_id
from gateway.model.routes import GuardedRoute

NO_ADDRESS = "in-process"
"""The caller's address, when the operator does not give one. It is in no network, so a key that is bound to
networks is refused.
"""

METHOD = "LOAD"


class HookRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whether the holder of this key may do this with this model, or with this package of it.

    `hook` names the engine's hook in the audit record; it is ours, never a caller's text.
    """

    hook: str
    action: Action
    raw_model: str
    raw_package: str | None
    raw_key: str | None
    client: str = NO_ADDRESS

    def __repr__(self) -> str:
        return shown(self, hidden=("raw_key",))

    def request(self, now: float) -> WireRequest:
        """The request as the guard reads it. Without a key there is no header; `extract` handles that."""
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if self.raw_key is not None:
            headers = ((b"authorization", b"Bearer " + self.raw_key.encode("utf-8", "surrogatepass")),)
        return WireRequest(
            method=METHOD,
            raw_path=self._text(),
            query=b"",
            headers=headers,
            client=self.client,
            route=self._template,
            trace_id=None,
            received_at=now,
        )

    def route(self) -> GuardedRoute:
        """The route's declaration: this one action, on this one resource."""
        return GuardedRoute(
            template=self._template,
            methods=(METHOD,),
            action=self.action,
            matches=lambda _raw_path: True,
            locate=lambda _request: self._locate(),
        )

    def _text(self) -> bytes:
        """The whole question as one unique path: the guard's caches are keyed by the path."""
        asked = (self.hook, self.action.value, self.raw_model, self.raw_package)
        return repr(asked).encode("utf-8", "backslashreplace")

    @property
    def _template(self) -> str:
        return f"in-process/{self.hook}"

    def _locate(self) -> Resource:
        try:
            model = parse_model_id(self.raw_model)
            package = None if self.raw_package is None else parse_package_id(self.raw_package)
        except BadNameError as error:
            raise Refusal(Reason.MALFORMED_PATH) from error
        if package is None and os.path.lexists(model):
            raise Refusal(Reason.MALFORMED_PATH)
        kind = ResourceKind.MODEL if package is None else ResourceKind.PACKAGE
        return Resource(kind=kind, model=model, package=package)
