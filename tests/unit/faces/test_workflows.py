"""What no rule can permit; the rest of this face is in `tests/http` and `tests/server`."""

from __future__ import annotations

import pytest

from gateway.faces.workflows import verify_permissible
from gateway.front_door.servers import Servers
from gateway.front_door.workflows.needs import Needs
from gateway.model.access import ALLOWABLE, Action, Principal
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import KeyKind
from gateway.model.inference import InferenceServer
from gateway.model.names import KeyId, ModelId, TenantId

ACME = TenantId("acme")


class Clock:
    def monotonic(self):
        return 0.0


def principal(**more):
    return Principal(
        kind=KeyKind.TENANT,
        key_id=KeyId("key_1"),
        key_name="",
        tenant=ACME,
        scopes=frozenset(),
        expires_at=None,
        **more,
    )


def server(tenant=None):
    return Servers([InferenceServer(url="http://a:1", tenant=tenant)], Clock()).all[0]


def needs(*actions, projects=(), stateful_models=()):
    steps = dict.fromkeys(actions, ("one",))
    return Needs(models=stateful_models, projects=projects, steps=steps, stateful_models=stateful_models)


def refused(*arguments):
    with pytest.raises(Refusal) as caught:
        verify_permissible(*arguments)
    assert caught.value.client_detail
    return caught.value.reason


@pytest.mark.parametrize("action", [one for one in ALLOWABLE if one is not Action.EXTERNAL_REQUEST])
def test_what_servers_share_needs_one_of_the_tenants_own(action):
    for other in (server(), server(TenantId("globex"))):
        assert refused(needs(Action.EXTERNAL_REQUEST, action), principal(), other) is Reason.SHARED_SERVER
    verify_permissible(needs(action), principal(), server(ACME))


def test_a_model_that_keeps_what_others_told_it_needs_one_of_the_tenants_own():
    keeping = needs(stateful_models=(ModelId("yolo_world/l"),))
    for other in (server(), server(TenantId("globex"))):
        assert refused(keeping, principal(), other) is Reason.SHARED_SERVER
    verify_permissible(keeping, principal(), server(ACME))


def test_external_requests_do_not():
    verify_permissible(needs(Action.EXTERNAL_REQUEST), principal(), server())


def test_projects_are_the_keys_own():
    projects = (ModelId("set"),)
    assert refused(needs(projects=projects), principal(), server(ACME)) is Reason.OPERATORS_PROJECT
    verify_permissible(needs(projects=projects), principal(is_of_platform=True), server())
