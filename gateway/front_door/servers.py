"""Which inference server a request goes to: one model on one server, a bound tenant on its own servers.

A server keeps a few models in memory. One that is full unloads several for a new one, perhaps another
tenant's. So servers are not chosen by load alone, or each would load every model:

- Rendezvous hashing: each model has an order of all servers, by a hash of both names. It goes to the first.
  When a server goes away only its own models move, and every worker finds the same order.
- Bounded load (Mirrokni, Thorup, Zadimoghaddam: consistent hashing with bounded loads): a server that has
  more than `SHARE_OF_AVERAGE` times the average of requests under way is passed over, so that one popular
  model spreads. Below `LEAST_BEFORE_SPREADING` requests nothing spreads: loading a model costs more.
- A server has `MAX_UNDER_WAY` requests of this worker at most, and one tenant half of them: a tenant cannot
  use up a server that others share.
- Left out: servers that failed the health check, and those with an open circuit, but for one trial.

A tenant with servers of its own is never sent elsewhere, and nobody else is sent there: a bound server that
is down is a refusal, and no reason to share the memory of another.

Nothing here sends anything. The clock is passed in. One worker's counts; workers do not share them.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

from gateway.model.circuit import Circuit
from gateway.model.errors import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from gateway.model.clocks import MonotonicClock
    from gateway.model.inference import InferenceServer
    from gateway.model.names import TenantId

SHARE_OF_AVERAGE = 1.25  # the bound of the paper's own measurements
LEAST_BEFORE_SPREADING = 8  # requests under way that no model spreads below
MAX_UNDER_WAY = 64  # of one worker at one server, whose own pool has 40 threads
MAX_OF_TENANT = MAX_UNDER_WAY // 2  # at a server that tenants share
FAILED_CHECKS = 2  # in a row, before a server is left out: one may be late under load


class Use:
    """One request's use of a server. Where nothing is reported, the outcome says nothing about the server."""

    def __init__(self, server: BalancedServer, circuit: Circuit, entered: int) -> None:
        self.server = server
        self._circuit, self._entered = circuit, entered

    def succeeded(self) -> None:
        """Report that the server began an answer, whatever its status: it closes the circuit."""
        self._circuit.succeed(self._entered)

    def failed(self) -> None:
        """Report that the server could not be reached or broke off: several in a row open the circuit.

        Not for what one caller can provoke, such as an answer that takes too long to begin.
        """
        self._circuit.fail(self._entered)

    def _end(self) -> None:
        self._circuit.leave(self._entered)  # counts only where nothing was reported


class BalancedServer:
    """One server, its health, and how many requests of this worker it has."""

    def __init__(self, server: InferenceServer, clock: MonotonicClock) -> None:
        self.url, self.tenant, self.name = server.url, server.tenant, server.name
        self.under_way = 0
        self._of_tenant: defaultdict[TenantId | None, int] = defaultdict(int)
        self._failed_checks = 0
        self._circuit = Circuit(now=clock.monotonic, chance=random.random)

    @property
    def is_healthy(self) -> bool:
        """Whether its health checks succeed. A server that was not checked yet counts as healthy."""
        return self._failed_checks < FAILED_CHECKS

    @property
    def is_available(self) -> bool:
        """Whether a request may go there: it is healthy, and its circuit is closed or due for a trial."""
        return self.is_healthy and self._circuit.may_enter

    def note_check(self, *, is_ready: bool) -> None:
        """Take in the result of a health check."""
        self._failed_checks = 0 if is_ready else self._failed_checks + 1

    def has_room(self, tenant: TenantId | None) -> bool:
        """Whether one more request of this tenant is within the bounds."""
        most = MAX_UNDER_WAY if self.tenant is not None else MAX_OF_TENANT
        return self.under_way < MAX_UNDER_WAY and self._of_tenant.get(tenant, 0) < most

    @contextmanager
    def in_use(self, tenant: TenantId | None = None) -> Iterator[Use]:
        """Count a request until it ended. Begin it right after `choose`, with no `await` between the two.

        Raises `Refusal` where another request took the place since then.
        """
        if not self.has_room(tenant):
            raise Refusal(Reason.BUSY)
        entered = self._circuit.enter() if self.is_healthy else None
        if entered is None:
            raise Refusal(Reason.INFERENCE_UNAVAILABLE)
        use = Use(self, self._circuit, entered)
        self.under_way += 1
        self._of_tenant[tenant] += 1
        try:
            yield use
        finally:
            self.under_way -= 1
            self._of_tenant[tenant] -= 1
            if not self._of_tenant[tenant]:
                del self._of_tenant[tenant]  # the names of tenants are not kept
            use._end()  # noqa: SLF001 -- a `Use` is made here only


class Servers:
    """All servers of the front door, as one worker sees them."""

    def __init__(self, servers: Sequence[InferenceServer], clock: MonotonicClock) -> None:
        self.all = tuple(BalancedServer(one, clock) for one in servers)
        self._bound = {
            tenant: tuple(one for one in self.all if one.tenant == tenant)
            for tenant in {one.tenant for one in self.all}
        }

    def choose(
        self, model: str, tenant: TenantId | None, *, tried: Collection[BalancedServer] = ()
    ) -> BalancedServer:
        """Choose the server for a model of a tenant's request.

        `tried`: servers that this request could not be sent to. Raises `Refusal`: `INFERENCE_UNAVAILABLE`
        where no server is left, `BUSY` where none has room.
        """
        available = [one for one in self.all_for(tenant) if one.is_available and one not in tried]
        if not available:
            raise Refusal(Reason.INFERENCE_UNAVAILABLE)
        open_to_more = [one for one in available if one.has_room(tenant)]
        if not open_to_more:
            raise Refusal(Reason.BUSY)
        total = sum(one.under_way for one in available)
        bound = max(LEAST_BEFORE_SPREADING, math.ceil(SHARE_OF_AVERAGE * (total + 1) / len(available)))
        if len(open_to_more) == 1:
            return open_to_more[0]
        in_order = sorted(open_to_more, key=lambda one: _rank(one, model), reverse=True)
        # All may be over the bound where the tenant has no room at the others: then the model's own.
        return next((one for one in in_order if one.under_way < bound), in_order[0])

    def all_for(self, tenant: TenantId | None) -> tuple[BalancedServer, ...]:
        """The servers that a tenant's requests may go to: its own if it has any, else those of nobody."""
        return self._bound.get(tenant) or self._bound.get(None, ())


def _rank(server: BalancedServer, model: str) -> bytes:
    """How high this server stands for this model: the same in every process."""
    text = f"{server.url}\n{model}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=8).digest()
