"""The front door that a worker builds from its settings."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.adapters.provider import Provider
from gateway.assembly import front_door
from gateway.assembly.front_door import front_door_routes
from gateway.faces.front_door import FrontDoor
from gateway.front_door.writing import image_id_for
from gateway.model.inference import InferenceServer
from gateway.model.names import TenantId
from gateway.model.routes import ForwardedRoute

SHARED = InferenceServer(url="http://10.0.0.5:9001")
NORTHS = InferenceServer(url="http://10.0.0.7:9001", tenant=TenantId("north"))


@pytest.fixture(scope="module")
def settings(copy_of_demo):
    """With a pepper on disk, which the secret of the front door is made of."""
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))  # short: a unix socket's path has to fit
    made = copy_of_demo(folder).settings
    yield replace(made, inference_url=(SHARED, NORTHS), inference_key="the-operators-key")
    shutil.rmtree(folder)


@dataclass
class PipelineOfWorker:
    """What a front door needs of a worker's pipeline."""

    settings: Any
    provider: Any = None
    is_leased: bool = True
    swept: list[Any] = field(default_factory=list)

    def __post_init__(self):
        self.clock = SimpleNamespace(monotonic=lambda: 0.0)
        self.upkeep = SimpleNamespace(more_chores=(), at_the_end=("what was there",))
        self.guard = SimpleNamespace(inferable="asks the guard")
        self.facts = SimpleNamespace(is_leased=lambda: self.is_leased)
        self.telemetry = None

    def sweep(self, memory):
        self.swept.append(memory)


@pytest.fixture
def built(monkeypatch, settings):
    """Build with other settings; the route, the door itself and the parts that it was made of."""

    def build(provider=None, **changes):
        doors = []
        monkeypatch.setattr(front_door, "route_of", lambda door: doors.append(door) or "the route")
        parts = PipelineOfWorker(replace(settings, **changes), provider=provider)
        assert front_door_routes(parts) == ["the route"]
        return doors[0], parts

    return build


def test_without_a_server_in_the_settings_there_is_none_of_it(settings):
    parts = PipelineOfWorker(replace(settings, inference_url=()))
    assert front_door_routes(parts) == []
    assert (parts.upkeep.more_chores, parts.upkeep.at_the_end) == ((), ("what was there",))


def test_there_is_one_route_and_it_is_forwarded(settings):
    [face] = front_door_routes(PipelineOfWorker(settings))
    assert isinstance(face.declaration, ForwardedRoute)
    assert face.declaration.max_body_bytes == settings.inference_max_body_megabytes << 20


def test_the_door_has_what_the_settings_say(built):
    origins = ("https://app.example",)
    door, _ = built(inference_mount="/x", inference_origins=origins, inference_max_body_megabytes=3)
    assert isinstance(door, FrontDoor)
    assert (door.mount, door.max_body_bytes, door.origins) == (b"/x", 3 << 20, ("https://app.example",))
    assert [(one.url, one.tenant) for one in door.servers.all] == [
        (SHARED.url, None),
        (NORTHS.url, NORTHS.tenant),
    ]
    assert door.service_key == "the-operators-key"
    assert door.may_infer == "asks the guard"
    assert door.table.version == "1.8.3"


def test_without_a_key_in_the_settings_the_door_has_none(built):
    assert built(inference_key=None)[0].service_key is None


def test_servers_are_checked_as_long_as_the_worker_runs_and_all_connections_end_with_it(built):
    door, parts = built()
    [(name, chore)] = parts.upkeep.more_chores
    assert name == "inference-servers"
    assert (chore.func, chore.args) == (door.client.check_forever, (door.servers.all,))
    assert parts.upkeep.at_the_end == (door.client.close, door.images.close, "what was there")


def test_images_are_fetched_from_public_addresses_alone(built):
    assert built()[0].images._transport._may_be_private is False


def test_what_models_bring_is_asked_of_the_provider_where_there_is_one(built):
    assert built()[0].dependencies is None
    provider = object.__new__(Provider)
    door, parts = built(provider=provider)
    assert door.dependencies._provider is provider
    remembering = (door.dependencies, door.saved, door.describer, door.block_answers)
    assert parts.swept[-4:] == [one.memory for one in remembering], "it has a bound and is swept"


@pytest.mark.parametrize("is_leased", [True, False])
@pytest.mark.parametrize("healthy", [0, 1, 2])
def test_it_is_ready_with_a_lease_and_a_server(built, is_leased, healthy):
    door, parts = built()
    parts.is_leased = is_leased
    for server in door.servers.all[healthy:]:
        for _ in range(2):
            server.note_check(is_ready=False)
    assert door.is_ready() is (is_leased and healthy > 0)


def test_names_of_images_are_another_installations_secret(built, settings):
    """The same in every worker and after a restart; made of the pepper, and not the pepper itself."""
    door, again = built()[0], built()[0]
    assert door.secret == again.secret
    assert len(door.secret) == 32
    document = {"image_id": "mine"}
    name = image_id_for(document, TenantId("acme"), door.secret)
    assert name == image_id_for(document, TenantId("acme"), again.secret)
    peppers = b"".join(one.read_bytes() for one in Path(settings.pepper_folder).rglob("*") if one.is_file())
    assert door.secret not in peppers
    assert door.secret.hex().encode() not in peppers
