"""Caches, per caller, the models that it may discover and the packages that it may read.

The models are for listings, the packages for finding blobs. A view is computed once per caller, however many
of its requests need it (singleflight), in batches between which other requests run. It is kept until the
catalogue changes, or a fact that it was computed from. Facts of others change all the time (keys are made,
the canary's fact is rewritten) and cost nothing here. A view is charged the records that it was computed
from, each once for all views. More of these than the near cache holds would be of no use, since a record that
the near cache has evicted is no longer current.

Tokens of one key that are limited alike share a view: each job of a CI system has a new token, and would
otherwise have its view computed, and another caller's dropped.

A view only narrows a search. Everything that is shown or served because of it is decided once more by itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec.structs import replace

from gateway.model.access import Access, Action, Resource, ResourceKind
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.singleflight import Singleflight
from gateway.model.verdicts import Allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from gateway.decisions import Decisions
    from gateway.model.access import Principal
    from gateway.model.listings import ListedPackage
    from gateway.model.names import ModelId
    from gateway.model.ports import Catalogue, Directory
    from gateway.model.stamps import Leaf

T = TypeVar("T")

DECISIONS_PER_TURN = 200  # requested together; `Decisions` makes them in smaller batches
REMEMBERED_CALLERS = 64  # callers whose views are kept
VIEW_BYTES = 1_000  # of a view with its caller, without its two tuples: measured, rounded up


@dataclass(slots=True)
class View(Generic[T]):
    """What one caller may see, and what that was computed from."""

    things: tuple[T, ...]
    source: Sequence[T]  # the catalogue's list; the catalogue makes a new object when it changes
    epoch: int  # the directory's, the latest at which all of `leaves` were current
    leaves: tuple[Leaf, ...]
    by_time: tuple[Leaf, ...] = field(init=False)  # those of them that can end without a change of facts

    def __post_init__(self) -> None:
        """Pick out what has to be checked in the same epoch, too."""
        self.by_time = tuple(leaf for leaf in self.leaves if leaf.ends_by_time)

    def stands(self, source: Sequence[T], epoch: int) -> bool:
        """Whether it is still valid. In the same epoch, only what ends by time has to be checked."""
        if self.source is not source or not all(leaf.is_current for leaf in self.by_time):
            return False
        if self.epoch != epoch:
            if not all(leaf.is_current for leaf in self.leaves):
                return False
            self.epoch = epoch
        return True


class CallerViews:
    """The views of all callers."""

    def __init__(
        self, *, directory: Directory, decisions: Decisions, catalogue: Catalogue, max_bytes: int
    ) -> None:
        """`max_bytes` is for both kinds of view together."""
        self._directory = directory
        self._decisions = decisions
        self._catalogue = catalogue
        each = max_bytes // 2
        self._models = _Views(catalogue.models, directory, self._work_out_models, each)
        self._packages = _Views(catalogue.listed, directory, self._work_out_packages, each)

    @property
    def memories(self) -> tuple[BoundedMemory[Any, Any], ...]:
        """The bounded memories, for the regular sweep."""
        return self._models.memory, self._packages.memory

    async def models(self, principal: Principal) -> tuple[ModelId, ...]:
        """The models on disk that the caller may discover, sorted."""
        return (await self._models.of(_without_token(principal))).things

    async def packages(self, principal: Principal) -> tuple[ListedPackage, ...]:
        """The packages that the caller may read, of the models that it may discover."""
        return (await self._packages.of(_without_token(principal))).things

    def recall_models(self, principal: Principal) -> tuple[ModelId, ...] | None:
        """The same from memory alone; None where it has to be computed."""
        view = self._models.recall(_without_token(principal))
        return None if view is None else view.things

    def recall_packages(self, principal: Principal) -> tuple[ListedPackage, ...] | None:
        """The same from memory alone; None where it has to be computed."""
        view = self._packages.recall(_without_token(principal))
        return None if view is None else view.things

    async def _work_out_models(self, principal: Principal) -> View[ModelId]:
        models = self._catalogue.models()
        epoch = self._directory.epoch
        asked = ((one, discovery(principal, one)) for one in models)
        things, leaves = await self._permitted(asked)
        return View(things, models, epoch, tuple(leaves.values()))

    async def _work_out_packages(self, principal: Principal) -> View[ListedPackage]:
        listed = self._catalogue.listed()
        epoch = self._directory.epoch
        seen = await self._models.of(principal)
        models = frozenset(seen.things)
        asked = ((one, _reading(principal, one)) for one in listed if one.model in models)
        things, leaves = await self._permitted(asked)
        leaves |= {id(leaf): leaf for leaf in seen.leaves}  # a model that becomes discoverable adds packages
        return View(things, listed, epoch, tuple(leaves.values()))

    async def _permitted(self, asked: Iterable[tuple[T, Access]]) -> tuple[tuple[T, ...], dict[int, Leaf]]:
        """The things whose access is allowed, and the facts of all these decisions."""
        questions = iter(asked)  # a generator: to make a hundred thousand at once would take long
        permitted: list[T] = []
        leaves: dict[int, Leaf] = {}
        while batch := list(islice(questions, DECISIONS_PER_TURN)):
            judgements = await self._decisions.reach_many([access for _, access in batch])
            for (thing, _), judgement in zip(batch, judgements, strict=True):
                leaves |= {id(leaf): leaf for leaf in judgement.facts.stamp.leaves}
                if isinstance(judgement.verdict, Allowed):
                    permitted.append(thing)
            await asyncio.sleep(0)
        return tuple(permitted), leaves


class _Views(Generic[T]):
    """One kind of view: each caller's is kept while it is valid, else computed by one task."""

    def __init__(
        self,
        source: Callable[[], Sequence[T]],
        directory: Directory,
        work_out: Callable[[Principal], Coroutine[None, None, View[T]]],
        max_bytes: int,
    ) -> None:
        self._source = source
        self._directory = directory
        self._work_out = work_out
        self.memory: BoundedMemory[Principal, View[T]] = BoundedMemory(
            max_bytes=max_bytes,
            max_entries=REMEMBERED_CALLERS,
            weigh=lambda _, view: VIEW_BYTES + 8 * (len(view.things) + len(view.leaves)),
            stands_on=attrgetter("leaves"),
            is_over=lambda view: view.source is not source(),  # an outdated list of the catalogue is large
        )
        self._computing: Singleflight[Principal, View[T]] = Singleflight(lambda _, view: self._stands(view))

    def recall(self, principal: Principal) -> View[T] | None:
        view = self.memory.peek(principal)
        return view if view is not None and self._stands(view) else None

    async def of(self, principal: Principal) -> View[T]:
        return self.recall(principal) or await self._computing.run(
            principal, partial(self._compute, principal)
        )

    def _stands(self, view: View[T]) -> bool:
        return view.stands(self._source(), self._directory.epoch)

    async def _compute(self, principal: Principal) -> View[T]:
        view = await self._work_out(principal)
        for _ in self.memory.putting(principal, view):
            await asyncio.sleep(0)
        return view


def _without_token(principal: Principal) -> Principal:
    """The caller without what tells its tokens apart. All that have the same limits may see the same."""
    if principal.token_id is None and principal.issuer is None:
        return principal
    return replace(principal, token_id=None, expires_at=None)


def discovery(principal: Principal, model: ModelId) -> Access:
    """The access of a caller that discovers a model."""
    resource = Resource(kind=ResourceKind.MODEL, model=model)
    return Access(principal=principal, action=Action.DISCOVER, resource=resource)


def _reading(principal: Principal, listed: ListedPackage) -> Access:
    resource = Resource(kind=ResourceKind.PACKAGE, model=listed.model, package=listed.package)
    return replace(discovery(principal, listed.model), action=Action.READ, resource=resource)
