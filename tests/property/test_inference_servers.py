"""The choice of inference servers: bounded load, few moves, and a bound tenant never elsewhere."""

from __future__ import annotations

import math
from contextlib import ExitStack, suppress

from hypothesis import given
from hypothesis import strategies as st

from gateway.front_door.servers import (
    FAILED_CHECKS,
    LEAST_BEFORE_SPREADING,
    MAX_UNDER_WAY,
    SHARE_OF_AVERAGE,
    Servers,
)
from gateway.model.errors import Reason, Refusal
from gateway.model.inference import InferenceServer
from gateway.model.names import TenantId

TENANTS = [TenantId("north"), TenantId("south"), TenantId("east"), None]
MODELS = [f"acme/{number}" for number in range(60)]


class StillClock:
    def monotonic(self):
        return 0.0


def shared(count):
    return Servers([InferenceServer(url=f"http://s{n}:9001") for n in range(count)], StillClock())


def choose(servers, model, tenant):
    """The server, or None where all are full."""
    try:
        return servers.choose(model, tenant)
    except Refusal as refusal:
        if refusal.reason is not Reason.BUSY:
            raise
        return None


@given(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=250))
def test_no_server_gets_more_than_its_share(count, requests):
    """Each request that begins is within the bound, whichever models are popular and whichever end."""
    servers, ends = shared(count), []
    for number, (model, is_end) in enumerate(requests):
        if is_end and ends:
            ends.pop(number % len(ends)).close()
            continue
        server = choose(servers, MODELS[model], TenantId(f"t{number % 5}"))
        if server is None:
            continue
        total = sum(one.under_way for one in servers.all)
        bound = max(LEAST_BEFORE_SPREADING, math.ceil(SHARE_OF_AVERAGE * (total + 1) / count))
        assert server.under_way < min(bound, MAX_UNDER_WAY)
        end = ExitStack()
        end.enter_context(server.in_use(TenantId(f"t{number % 5}")))
        ends.append(end)
    for end in ends:
        end.close()
    assert all(one.under_way == 0 for one in servers.all)


@given(st.integers(2, 8), st.data())
def test_only_the_models_of_a_server_that_goes_move_and_they_come_back(count, data):
    servers = shared(count)
    before = {model: servers.choose(model, None) for model in MODELS}
    gone = data.draw(st.sampled_from(servers.all))
    for _ in range(FAILED_CHECKS):
        gone.note_check(is_ready=False)
    for model, server in before.items():
        now = servers.choose(model, None)
        assert now is not gone
        assert now is server or server is gone
    gone.note_check(is_ready=True)
    assert {model: servers.choose(model, None) for model in MODELS} == before


@given(st.integers(1, 6), st.sampled_from(MODELS))
def test_a_server_that_is_added_takes_models_and_moves_none_among_the_others(count, model):
    before, after = shared(count), shared(count + 1)
    new = after.all[-1].name
    assert after.choose(model, None).name in {before.choose(model, None).name, new}


@given(
    st.lists(st.sampled_from(TENANTS), min_size=1, max_size=6),
    st.lists(st.tuples(st.sampled_from(TENANTS), st.sampled_from(MODELS), st.integers(0, 7)), max_size=150),
)
def test_a_bound_tenant_is_never_sent_elsewhere_and_nobody_else_to_its_servers(bindings, requests):
    """Whatever is full, unhealthy or tried, and also where that leaves no server."""
    servers = Servers(
        [InferenceServer(url=f"http://s{n}:9001", tenant=tenant) for n, tenant in enumerate(bindings)],
        StillClock(),
    )
    bound = {tenant for tenant in bindings if tenant is not None}
    with ExitStack() as under_way:
        for tenant, model, event in requests:
            touched = servers.all[event % len(bindings)]
            if event > 5:
                touched.note_check(is_ready=event % 2 == 0)
            with suppress(Refusal):
                server = servers.choose(model, tenant, tried=[touched] if event < 2 else ())
                assert server.tenant == (tenant if tenant in bound else None)
                assert server.is_healthy
                under_way.enter_context(server.in_use(tenant))
