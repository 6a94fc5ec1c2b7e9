"""What stages need from the outside and from each other, as Protocols.

`adapters/` implement the first half (stores, clocks), the rooms the second; `guard.py` knows the
rooms by these only, and `app.py` fills them in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from gateway.model.access import Access, Credential, Principal
    from gateway.model.facts import Facts, Key, Leaf, Stamp, Tenant
    from gateway.model.listings import ListedPackage, PackageListing
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId
    from gateway.model.verdicts import Admission, Change, ChangeReceipt, OpenFile, Receipt, Rejection, Verdict


class Clock(Protocol):
    """The time; a room never reads one itself."""

    def now(self) -> float:
        """Seconds since the epoch."""


@dataclass(slots=True)
class Batch:
    """What one transaction writes: all of it or nothing, with one step of the global generation.

    `facts` are whole records; `index_*` keep the sets and hashes by which people list them.
    """

    facts: dict[bytes, bytes | None] = field(default_factory=dict)  # None deletes
    set_add: list[tuple[bytes, bytes]] = field(default_factory=list)
    set_remove: list[tuple[bytes, bytes]] = field(default_factory=list)
    hash_put: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    hash_drop: list[tuple[bytes, bytes]] = field(default_factory=list)


class FactSnapshot(Protocol):
    """Facts as they are while a transaction is planned; the plan is retried when they move meanwhile."""

    @property
    def next_generation(self) -> int:
        """The generation that this transaction's records will carry."""

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """The values of these names, in order."""

    async def members(self, name: bytes) -> list[bytes]:
        """The members of a set, unordered."""

    async def hash_field(self, name: bytes, key: bytes) -> bytes | None:
        """One field of a hash."""


class FactStore(Protocol):
    """Redis or Valkey, seen as a store of small records with one global generation.

    Every method raises `Unavailable` when the store does not answer; no other exception leaves it.
    """

    async def read(self, names: Sequence[bytes]) -> tuple[int, list[bytes | None]]:
        """The global generation, read first, and the values of these names, in one round trip."""

    async def generation(self) -> int:
        """The global generation."""

    async def members(self, name: bytes) -> list[bytes]:
        """The members of a set, unordered."""

    async def hash_field(self, name: bytes, key: bytes) -> bytes | None:
        """One field of a hash."""

    async def hash_fields(self, name: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Several fields of a hash, in order."""

    async def put_hash(self, name: bytes, values: dict[bytes, bytes]) -> None:
        """Write hash fields outside of any transaction: for hints such as "last used", never for facts."""

    async def transact(self, plan: Callable[[FactSnapshot, Batch], Awaitable[None]]) -> int:
        """Run `plan` and commit what it put into the batch; returns the new global generation.

        An empty batch commits nothing and returns the generation as it is.
        """

    async def close(self) -> None:
        """Let go of the connections."""


class MonotonicClock(Protocol):
    """A clock that nobody can set and that goes on while the machine sleeps."""

    def monotonic(self) -> float:
        """Seconds since some moment."""


class FactSource(Protocol):
    """Where the directory reads records: the near cache of a worker, or the store itself."""

    async def read(self, names: Sequence[bytes]) -> tuple[int, list[Leaf]]:
        """A leaf for each name, from memory where it is remembered, and the generation applied there."""

    async def read_afresh(self, names: Sequence[bytes]) -> tuple[int, list[Leaf]]:
        """The same from the store in any case, so that no caller learns what others made us remember."""

    def find(self, names: Sequence[bytes]) -> list[Leaf] | None:
        """The leaves, if every one is remembered: waits for nothing."""

    def is_leased(self) -> bool:
        """Whether the lease holds."""

    def is_fresh(self, degraded_seconds: float) -> bool:
        """Whether memory may be trusted now."""

    def verify_fresh(self, degraded_seconds: float) -> None:
        """Raises `Unavailable(NO_LEASE)` when memory may not be trusted now."""

    def holds(self, stamp: Stamp, degraded_seconds: float) -> bool:
        """The last check before the first byte; raises as `verify_fresh` does."""


class KeyDirectory(Protocol):
    """The part of the directory that authentication reads."""

    async def find_key_again(self, stamp: Stamp) -> tuple[Key | None, Tenant | None, Stamp]:
        """As `find_key`, for a key that was found before, by the stamp of that."""

    async def find_key(self, digests: Sequence[bytes]) -> tuple[Key | None, Tenant | None, Stamp]:
        """The key record under the first of these digests that has one, its tenant, and what was read.

        Raises `Refusal(UNREADABLE_KEY)` when a record does not parse.
        """


class Reauthenticate(Protocol):
    """A key that was valid once more, by what was read of it."""

    async def reauthenticate(self, stamp: Stamp, client: str, now: float) -> Stamp:
        """What it stands on now. Raises `Refusal` for a key that is no longer valid."""


class Authenticate(Protocol):
    """Credential in, valid principal out."""

    def recall(self, credential: Credential, client: str, now: float) -> tuple[Principal, Stamp] | None:
        """As `authenticate`, from memory alone. None sends the caller there, which says why it is refused."""

    async def authenticate(self, credential: Credential, client: str, now: float) -> tuple[Principal, Stamp]:
        """Raises `Refusal` with the key's id, if one was found, for every key that is not valid now."""

    def is_valid_still(self, principal: Principal, since: float, now: float) -> bool:
        """Whether a caller who was authenticated then, and whose records have not moved, is valid now."""


class Directory(Protocol):
    """The facts, as the guard asks for them."""

    async def bring(self, principal: Principal, models: Sequence[ModelId | None]) -> list[Facts]:
        """The facts about this caller and each of these models (None: no model), in order."""

    def is_leased(self) -> bool:
        """Whether the lease itself holds, no degraded time counted in."""

    def is_fresh(self, degraded_seconds: float) -> bool:
        """Whether anything may be answered now."""

    def verify_fresh(self, degraded_seconds: float) -> None:
        """Raises `Unavailable(NO_LEASE)` when nothing may be answered now."""

    def still_true(self, stamp: Stamp, degraded_seconds: float) -> bool:
        """The last check before the first byte: the lease holds and nothing that the answer stands on moved.

        Synchronous. Raises `Unavailable(NO_LEASE)` when there is no lease.
        """


class Decide(Protocol):
    """The rules. No I/O; a denial is a value."""

    def decide(self, access: Access, facts: Facts) -> Verdict:
        """Allowed or Denied. A rule that cannot be evaluated and a fact that cannot be read deny (I1)."""

    def decide_many(self, accesses: Sequence[Access], facts: Sequence[Facts]) -> list[Verdict]:
        """The same for many questions at once, in order."""


class Catalogue(Protocol):
    """What is on disk, confirmed against it for the one thing about to be served.

    Never asked before a decision, so that how long it takes tells a stranger nothing (I3).
    """

    def models(self) -> Sequence[ModelId]:
        """The models on disk, sorted, as of the last scan."""

    def listed(self) -> Sequence[ListedPackage]:
        """Their servable packages as of the last scan, by model and package: where to look for a digest.

        The same object for as long as nothing in it changed.
        """

    def packages(self, model: ModelId) -> tuple[PackageId, ...]:
        """The servable packages of a model, sorted, as the disk has them now. Empty when there are none."""

    def listing(self, model: ModelId, package: PackageId) -> PackageListing | None:
        """A package's servable files, as the disk has them now; None when the package is not there."""

    def find_blob(self, model: ModelId, package: PackageId, md5: Md5) -> FileHandle | None:
        """A file of this package that links this blob, if there is one."""

    def open_file(self, model: ModelId, package: PackageId, handle: FileHandle) -> OpenFile | None:
        """Open a file safely; None when it is not there.

        Raises `Refusal(UNSERVABLE)` when what lies there is not what the engine would have left.
        """

    async def refresh(self, known: Iterable[ModelId]) -> None:
        """Scan the disk again, off the event loop; `known` ids name directories whose manifests do not."""


class Recorder(Protocol):
    """The audit log. Synchronous: when a method returns, the record is as durable as configured (I5).

    Every method raises `Unavailable(reason=NO_AUDIT)` when the record cannot be written.
    """

    def admit(self, admission: Admission) -> Receipt:
        """Record an allow and hand out the proof."""

    def admit_all(self, admissions: Sequence[Admission]) -> list[Receipt]:
        """Record several allows in one go, and hand out the proofs, in order."""

    def reject(self, rejection: Rejection) -> str:
        """Record a refusal and return the record's id."""

    def change(self, change: Change) -> ChangeReceipt:
        """Record that a change is about to be made."""
