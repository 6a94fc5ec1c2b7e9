"""Which server a request goes to, with a clock of the test."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from gateway.front_door.servers import (
    FAILED_CHECKS,
    LEAST_BEFORE_SPREADING,
    MAX_OF_TENANT,
    MAX_UNDER_WAY,
    Servers,
)
from gateway.model.circuit import FAILURES, LONGEST_PAUSE_SECONDS
from gateway.model.errors import Reason, Refusal
from gateway.model.inference import InferenceServer
from gateway.model.names import TenantId

NORTH, SOUTH = TenantId("north"), TenantId("south")
MODEL = "acme/1"
ORDER = "babacacb"  # the hosts of acme/0 to acme/7, as computed when this was written


class StillClock:
    def __init__(self):
        self.seconds = 1000.0

    def monotonic(self):
        return self.seconds


def servers_of(*names, clock=None):
    """Servers by their hosts; `north=b` binds one."""
    found = []
    for name in names:
        tenant, _, host = name.rpartition("=")
        found.append(InferenceServer(url=f"http://{host}:9001", tenant=TenantId(tenant) if tenant else None))
    return Servers(found, clock or StillClock())


def refused(servers, *arguments, **more):
    with pytest.raises(Refusal) as caught:
        servers.choose(*arguments, **more)
    return caught.value.reason


def break_down(server):
    for _ in range(FAILURES):
        with server.in_use() as use:
            use.failed()


def test_a_model_stays_on_one_server_and_models_are_spread_over_all():
    servers, others = servers_of("a", "b", "c"), servers_of("c", "a", "b")
    models = [f"acme/{number}" for number in range(300)]
    home = {model: servers.choose(model, SOUTH).name for model in models}
    assert home == {model: others.choose(model, NORTH).name for model in models}  # whoever asks, in any order
    counts = [list(home.values()).count(name) for name in ("a:9001", "b:9001", "c:9001")]
    assert min(counts) > 60


def test_the_order_is_the_same_in_every_process():
    # A hash with a seed of the process would place a model on a server for each worker.
    assert [servers_of("a", "b", "c").choose(f"acme/{n}", None).name[0] for n in range(8)] == list(ORDER)


def test_below_the_least_load_nothing_spreads():
    servers = servers_of("a", "b", "c")
    home = servers.choose(MODEL, None)
    with ExitStack() as under_way:
        for _ in range(LEAST_BEFORE_SPREADING):
            assert servers.choose(MODEL, None) is home
            under_way.enter_context(home.in_use())
        assert servers.choose(MODEL, None) is not home
    assert servers.choose(MODEL, None) is home


def test_a_tenant_with_servers_is_sent_nowhere_else_and_nobody_else_there():
    servers = servers_of("a", "north=b", "c", "north=d")
    for number in range(100):
        assert servers.choose(f"acme/{number}", NORTH).tenant == NORTH
        assert servers.choose(f"acme/{number}", SOUTH).tenant is None
        assert servers.choose(f"acme/{number}", None).tenant is None
    assert {one.name for one in servers.all_for(NORTH)} == {"b:9001", "d:9001"}
    assert {one.name for one in servers.all_for(None)} == {"a:9001", "c:9001"}


def test_a_tenant_whose_servers_are_down_is_refused_and_not_sent_elsewhere():
    servers = servers_of("a", "north=b")
    (own,) = servers.all_for(NORTH)
    for _ in range(FAILED_CHECKS):
        own.note_check(is_ready=False)
    assert refused(servers, MODEL, NORTH) is Reason.INFERENCE_UNAVAILABLE
    own.note_check(is_ready=True)
    break_down(own)
    assert refused(servers, MODEL, NORTH) is Reason.INFERENCE_UNAVAILABLE
    assert servers.choose(MODEL, SOUTH).name == "a:9001"


def test_where_all_servers_are_bound_others_have_none():
    servers = servers_of("north=a")
    assert refused(servers, MODEL, SOUTH) is Reason.INFERENCE_UNAVAILABLE
    assert refused(servers, MODEL, None) is Reason.INFERENCE_UNAVAILABLE


def test_a_server_is_left_out_after_failed_checks_in_a_row_and_comes_back_with_one():
    servers = servers_of("a", "b")
    home = servers.choose(MODEL, None)
    home.note_check(is_ready=False)
    home.note_check(is_ready=True)
    home.note_check(is_ready=False)
    assert servers.choose(MODEL, None) is home  # not in a row
    home.note_check(is_ready=False)
    other = servers.choose(MODEL, None)
    assert other is not home
    with pytest.raises(Refusal) as caught, home.in_use():
        pass
    assert caught.value.reason is Reason.INFERENCE_UNAVAILABLE
    for _ in range(FAILED_CHECKS):
        other.note_check(is_ready=False)
    assert refused(servers, MODEL, None) is Reason.INFERENCE_UNAVAILABLE
    home.note_check(is_ready=True)
    assert servers.choose(MODEL, None) is home


def test_a_server_that_was_tried_is_not_chosen_again():
    servers = servers_of("a", "b")
    first = servers.choose(MODEL, None)
    second = servers.choose(MODEL, None, tried=[first])
    assert second is not first
    assert refused(servers, MODEL, None, tried=[first, second]) is Reason.INFERENCE_UNAVAILABLE


def test_an_open_circuit_lets_one_trial_through_at_a_time():
    clock = StillClock()
    servers = servers_of("a", "b", clock=clock)
    home = servers.choose(MODEL, None)
    break_down(home)
    assert servers.choose(MODEL, None) is not home
    clock.seconds += LONGEST_PAUSE_SECONDS
    assert servers.choose(MODEL, None) is home
    with home.in_use() as trial:
        assert servers.choose(MODEL, None) is not home  # one at a time
        with pytest.raises(Refusal) as caught, home.in_use():
            pass
        assert caught.value.reason is Reason.INFERENCE_UNAVAILABLE
        trial.failed()
    assert servers.choose(MODEL, None) is not home
    clock.seconds += LONGEST_PAUSE_SECONDS
    with home.in_use() as trial:
        trial.succeeded()
        assert servers.choose(MODEL, None) is home  # closed as soon as the answer has begun
    assert home.is_available


def test_a_trial_that_says_nothing_makes_room_for_another():
    clock = StillClock()
    servers = servers_of("a", clock=clock)
    (server,) = servers.all
    break_down(server)
    clock.seconds += LONGEST_PAUSE_SECONDS
    with server.in_use():
        assert not server.is_available
    assert server.is_available


def test_failures_that_are_not_in_a_row_open_nothing():
    servers = servers_of("a")
    (server,) = servers.all
    for _ in range(3 * FAILURES):
        with server.in_use() as use:
            use.failed()
        with server.in_use() as use:
            use.succeeded()
    assert server.is_available


def test_a_tenant_has_half_of_a_shared_server_and_all_of_its_own():
    servers = servers_of("a", "north=b")
    (shared,), (own,) = servers.all_for(SOUTH), servers.all_for(NORTH)
    with ExitStack() as under_way:
        for _ in range(MAX_OF_TENANT):
            under_way.enter_context(shared.in_use(SOUTH))
        assert refused(servers, MODEL, SOUTH) is Reason.BUSY
        with pytest.raises(Refusal) as caught, shared.in_use(SOUTH):
            pass
        assert caught.value.reason is Reason.BUSY
        assert servers.choose(MODEL, TenantId("east")) is shared
        for _ in range(MAX_UNDER_WAY):
            under_way.enter_context(own.in_use(NORTH))
        assert refused(servers, MODEL, NORTH) is Reason.BUSY
        for _ in range(MAX_UNDER_WAY - MAX_OF_TENANT):
            under_way.enter_context(shared.in_use(TenantId("east")))
        assert refused(servers, MODEL, TenantId("west")) is Reason.BUSY
    assert servers.choose(MODEL, SOUTH) is shared
    assert [one.under_way for one in servers.all] == [0, 0]


def test_a_use_ends_with_an_error_too():
    servers = servers_of("a")
    (server,) = servers.all
    with pytest.raises(KeyError), server.in_use(NORTH):
        raise KeyError
    assert server.under_way == 0
    assert not server._of_tenant  # no name of a tenant is kept


def test_a_server_is_named_by_its_host_port_and_path():
    assert servers_of("a").all[0].name == "a:9001"
    assert InferenceServer(url="https://models.example/x").name == "models.example/x"
