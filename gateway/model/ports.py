"""What stages need from the outside and from each other, as Protocols.

`adapters/` implement the first half (stores, clocks), the rooms the second; `guard.py` knows the
rooms by these only, and `assembly/` fills them in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.model.access import Access, Credential, Principal, SignedLink
    from gateway.model.facts import Facts, Key, Leaf, Stamp, Tenant
    from gateway.model.listings import FileEntry, ListedPackage, PackageListing
    from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId
    from gateway.model.verdicts import Admission, Change, ChangeReceipt, OpenFile, Receipt, Rejection, Verdict


class Clock(Protocol):
    """The time; a room never reads one itself."""

    def now(self) -> float:
        """Seconds since the epoch."""


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

    async def find_key_digest(self, key_id: KeyId) -> bytes | None:
        """Under which digest the key with this id is said to lie: an index, which decides nothing."""


class Reauthenticate(Protocol):
    """A key that was valid once more, by what was read of it."""

    async def reauthenticate(self, stamp: Stamp, client: str, now: float) -> tuple[Principal, Stamp]:
        """The key's caller and what it stands on now. Raises `Refusal` for a key that is no longer valid."""

    def is_in_time(self, principal: Principal, now: float) -> bool:
        """Whether the caller's key, if its record has not moved, is within its times now."""


class Authenticate(Protocol):
    """Credential in, valid principal out. Who takes no signed links is never asked about one."""

    def recall(
        self, credential: Credential | SignedLink, client: str, now: float
    ) -> tuple[Principal, Stamp] | None:
        """As `authenticate`, from memory alone. None sends the caller there, which says why it is refused."""

    async def authenticate(
        self, credential: Credential | SignedLink, client: str, now: float
    ) -> tuple[Principal, Stamp]:
        """Raises `Refusal` with the key's id, if one was found, for every key that is not valid now."""

    def is_valid_still(self, principal: Principal, since: float, now: float) -> bool:
        """Whether a caller who was authenticated then, and whose records have not moved, is valid now."""


class PlatformAuthority(Protocol):
    """Who says what a platform's keys may have: asked where the facts do not say, and then they do."""

    async def introduce(self, credential: Credential, model: ModelId | None, client: str) -> None:
        """Make an unknown key known, if the platform lets it have this model. Raises `Refusal` if not.

        `client` is the address that it came from.
        """

    async def settle(self, credential: Credential, principal: Principal, model: ModelId | None) -> None:
        """Have the platform say whether a key of its own may have a model (None: whether it is one)."""


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

    Every method raises `Unavailable` where it cannot be said what is in the cache: its root is not there, its
    disk does not answer. None is asked before a decision, so that how long it takes tells a stranger
    nothing (I3).
    """

    def models(self) -> Sequence[ModelId]:
        """The models on disk, sorted, as of the last scan."""

    def listed(self) -> Sequence[ListedPackage]:
        """Their servable packages as of the last scan, by model and package: where to look for a digest.

        The same object for as long as nothing in it changed.
        """

    async def packages(self, model: ModelId) -> tuple[PackageId, ...]:
        """The servable packages of a model, sorted, as the disk has them now. Empty when there are none."""

    async def listing(
        self, model: ModelId, package: PackageId, *, after: FileHandle | None = None, limit: int | None = None
    ) -> PackageListing | None:
        """A package's servable files, as the disk has them now; None when the package is not there."""

    async def entries(
        self, model: ModelId, package: PackageId, handles: Sequence[FileHandle]
    ) -> Mapping[FileHandle, FileEntry]:
        """Those of these files that lie in the package as they should."""

    async def has(self, model: ModelId, package: PackageId, handle: FileHandle | None) -> bool:
        """Whether the package is there as it should be, and in it this file."""

    async def find_blob(self, model: ModelId, package: PackageId, md5: Md5) -> FileHandle | None:
        """A file of this package that links this blob, if there is one."""

    async def open_file(self, model: ModelId, package: PackageId, handle: FileHandle) -> OpenFile | None:
        """Open a file safely; None when it is not there.

        Raises `Refusal(UNSERVABLE)` when what lies there is not what the engine would have left.
        """

    def open_file_now(self, model: ModelId, package: PackageId, handle: FileHandle) -> OpenFile | None:
        """The same without waiting; None also where it would have to be waited for."""

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
