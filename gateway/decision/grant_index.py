"""Index a tenant's grants by the patterns and groups that they name, to find the relevant ones quickly.

A tenant may have thousands of grants, and passing all of them to Cedar would cost milliseconds per request
(about 9 µs for each entity it parses). So each grant is indexed under the patterns and groups it names, and
a query includes only those under the patterns and groups that cover its model. This narrows what Cedar sees
and never what it allows: Cedar itself tests that the resource is in the sets it is passed, so a slice with
too many grants would allow nothing more, and one with too few would deny.
"""

from __future__ import annotations

from sys import getsizeof
from typing import TYPE_CHECKING

import msgspec

from gateway.model.access import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gateway.model.facts import Grant
    from gateway.model.names import GroupName, PackageId, Pattern


_FILED_BYTES = 200  # of a list of grants under one name, and its index entry
_GRANT_BYTES = 250  # of a grant, without the names in it


def pattern_id(pattern: Pattern) -> str:
    """The ModelGroup id of a pattern, in a namespace that no group's name can reach."""
    return f"pattern:{pattern}"


def group_id(group: GroupName) -> str:
    """The ModelGroup id of a named group."""
    return f"group:{group}"


def pair_id(container: str, package: PackageId) -> str:
    """The id of a package within a model or a ModelGroup, as JSON: different pairs never share an id."""
    return msgspec.json.encode([container, package]).decode()


class GrantSlice(msgspec.Struct, frozen=True, kw_only=True):
    """The grants relevant to one query, as the sets of entity ids that the schema names."""

    discovers: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()
    infers: frozenset[str] = frozenset()
    discovers_packages: frozenset[str] = frozenset()
    reads_packages: frozenset[str] = frozenset()
    infers_packages: frozenset[str] = frozenset()
    glimpses: frozenset[str] = frozenset()


class GrantIndex:
    """One tenant's grants, indexed by the patterns and groups they name."""

    __slots__ = ("_filed", "held_bytes")

    def __init__(self, grants: Sequence[Grant]) -> None:
        filed: dict[str, list[Grant]] = {}
        names: list[str] = []
        for grant in grants:
            names += [*grant.models, *grant.groups, *grant.packages]
            for name in (*map(pattern_id, grant.models), *map(group_id, grant.groups)):
                of = filed.get(name)
                if of is None:
                    filed[name] = [grant]
                elif of[-1] is not grant:
                    of.append(grant)
        self._filed: Mapping[str, list[Grant]] = filed
        # The grants are counted too: once the facts have newer grants, only this index keeps these alive.
        self.held_bytes = (
            _FILED_BYTES * len(filed)
            + sum(map(getsizeof, filed))
            + 16 * sum(map(len, filed.values()))
            + _GRANT_BYTES * len(grants)
            + sum(map(getsizeof, names))
        )

    def slice(self, covers: Iterable[str], packages: Iterable[PackageId]) -> GrantSlice:
        """The grants indexed under any of these ModelGroups; of packages, only those asked about."""
        whole: dict[str, set[str]] = {action: set() for action in Action}
        narrowed: dict[str, set[str]] = {action: set() for action in Action}
        glimpses: set[str] = set()
        asked = frozenset(packages)
        for cover in covers:
            for grant in self._filed.get(cover, ()):
                for action in grant.actions & whole.keys():  # an unknown action grants nothing
                    if not grant.packages:
                        whole[action].add(cover)
                        continue
                    narrowed[action].update(
                        pair_id(cover, package) for package in asked & set(grant.packages)
                    )
                    if action in {Action.DISCOVER, Action.READ}:
                        glimpses.add(cover)
        return GrantSlice(
            discovers=frozenset(whole[Action.DISCOVER]),
            reads=frozenset(whole[Action.READ]),
            infers=frozenset(whole[Action.INFER]),
            discovers_packages=frozenset(narrowed[Action.DISCOVER]),
            reads_packages=frozenset(narrowed[Action.READ]),
            infers_packages=frozenset(narrowed[Action.INFER]),
            glimpses=frozenset(glimpses),
        )

    def matching(
        self, action: Action, covers: Iterable[str], package: PackageId | None
    ) -> Iterator[tuple[Grant, str]]:
        """The grants that give this action, each once, with the ModelGroup by which it matches.

        For the record and for people only: Cedar has decided already.
        """
        wanted = {action, Action.READ} if action is Action.DISCOVER else {action}
        seen: set[int] = set()
        for cover in covers:
            for grant in self._filed.get(cover, ()):
                if id(grant) in seen or not grant.actions & wanted:
                    continue
                shows_model = package is None and action is Action.DISCOVER
                if grant.packages and not shows_model and package not in grant.packages:
                    continue
                seen.add(id(grant))
                yield grant, cover
