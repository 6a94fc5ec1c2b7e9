"""The interfaces (Protocols) between the guard, the stages and the outside.

`adapters/` implement the first ones (clocks, stores), the stages the others; `guard.py` knows the stages by
these only, and `assembly/` connects them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.model.access import Credential, Principal, SignedLink
    from gateway.model.facts import Facts, Key, Tenant
    from gateway.model.issuers import FoundBinding, FoundIssuer, Issuer, MappingRule
    from gateway.model.listings import FileEntry, ListedPackage, PackageListing
    from gateway.model.names import FileHandle, KeyId, Md5, ModelId, PackageId, TenantId
    from gateway.model.stamps import Leaf, Stamp
    from gateway.model.verdicts import Admission, Change, ChangeReceipt, OpenFile, Receipt, Rejection


class FactSource(Protocol):
    """Where the directory reads records: the near cache of a worker, or the store itself."""

    async def read(self, names: Sequence[bytes]) -> tuple[int, list[Leaf]]:
        """A leaf for each name, from memory where it is cached, and the generation applied there."""

    async def read_afresh(self, names: Sequence[bytes]) -> tuple[int, list[Leaf]]:
        """The same, always from the store, so that no caller learns what others made us cache."""

    @property
    def epoch(self) -> int:
        """A number that changes whenever a record may have changed: while it is the same, none has."""

    def find(self, names: Sequence[bytes]) -> list[Leaf] | None:
        """The leaves, if every one is cached; waits for nothing."""

    def is_leased(self) -> bool:
        """Whether the lease holds."""

    def is_fresh(self, degraded_seconds: float) -> bool:
        """Whether memory may be trusted now, degraded time included."""

    def verify_fresh(self, degraded_seconds: float) -> None:
        """Raises `Unavailable(NO_LEASE)` when memory may not be trusted now."""

    def holds(self, stamp: Stamp, degraded_seconds: float) -> bool:
        """The last check before the first byte; raises as `verify_fresh` does."""


class KeyDirectory(Protocol):
    """The part of the directory that authentication reads."""

    async def find_key_again(self, stamp: Stamp) -> tuple[Key | None, Tenant | None, Stamp]:
        """As `find_key`, for a key that was found before, by the stamp returned then."""

    async def find_key(self, digests: Sequence[bytes]) -> tuple[Key | None, Tenant | None, Stamp]:
        """The key record under the first of these digests that has one, its tenant, and what was read.

        Raises `Refusal(UNREADABLE_KEY)` when a record does not parse.
        """

    async def find_key_digest(self, key_id: KeyId) -> bytes | None:
        """The digest that the index gives for this key id; the index decides nothing."""


class SubjectDirectory(Protocol):
    """The part of the directory that questions about others read."""

    async def find_key_of(self, key_id: KeyId, tenant: TenantId) -> tuple[Key | None, Tenant | None, Stamp]:
        """A tenant's key by its id, the tenant, and what was read; no key for one of another tenant.

        The same is read, from the store, whether there is such a key or not, and whoever owns it.
        """

    async def find_tenant(self, tenant: TenantId) -> tuple[Tenant | None, Stamp]:
        """A tenant and what was read; None for one that is not there, or whose record does not parse."""


class IssuerDirectory(Protocol):
    """The part of the directory that authentication of outside issuers' tokens reads."""

    async def find_issuer(self, url: str, *, afresh: bool = False) -> FoundIssuer:
        """An issuer and its keys; `afresh` reads them from the store, whatever is cached.

        Raises `Refusal(UNREADABLE_KEY)` when the issuer's record does not parse.
        """

    async def find_binding(self, digest: bytes, tenant: TenantId, *, afresh: bool = False) -> FoundBinding:
        """The binding under a digest, and a tenant. Raises `Refusal(UNREADABLE_KEY)`."""

    async def find_binding_again(self, stamp: Stamp) -> tuple[FoundIssuer, FoundBinding, MappingRule] | None:
        """What a caller with a token stands on now, by its stamp; None for the stamp of another caller."""


class OutsideIssuers(Protocol):
    """Does what a worker cannot do alone: has an issuer's keys fetched, and a subject bound."""

    async def refresh(self, issuer: Issuer, known_at: float | None) -> None:
        """Have the keys fetched, by one worker for all. `known_at` is when those known here were.

        Raises `Unavailable(ISSUER_UNDECIDED)` when they cannot be had.
        """

    def refresh_soon(self, issuer: Issuer, known_at: float) -> None:
        """The same in the background: nothing waits for it, and a failure is counted."""

    async def bind(self, issuer: Issuer, rule: MappingRule, subject: str) -> None:
        """Bind a subject to the tenant of the rule by which it came. Raises `Refusal`."""


class Reauthenticate(Protocol):
    """Authenticates again a key that was valid before, by the stamp of its records."""

    async def reauthenticate(self, stamp: Stamp, client: str, now: float) -> tuple[Principal, Stamp]:
        """The key's caller and its stamp now. Raises `Refusal` for a key that is no longer valid."""

    def is_in_time(self, principal: Principal, now: float) -> bool:
        """Whether the caller's key, if its record has not changed, is within its times now."""


class Authenticate(Protocol):
    """Credential in, valid principal out. An implementation without signed links never gets one."""

    def recall(
        self, credential: Credential | SignedLink, client: str, now: float
    ) -> tuple[Principal, Stamp] | None:
        """As `authenticate`, from memory alone. After None, call `authenticate`, which raises the reason."""

    async def authenticate(
        self, credential: Credential | SignedLink, client: str, now: float
    ) -> tuple[Principal, Stamp]:
        """Raises `Refusal` with the key's id, if one was found, for every key that is not valid now."""

    def is_valid_still(self, principal: Principal, since: float, now: float) -> bool:
        """Whether a caller authenticated at `since`, whose records have not changed, is valid now."""


class PlatformAuthority(Protocol):
    """Asks the platform about the rights of its keys where the facts lack the answer, and stores that."""

    async def introduce(self, credential: Credential, model: ModelId | None, client: str) -> None:
        """Make an unknown key known, if the platform lets it have this model. Raises `Refusal` if not.

        `client` is the address that the request came from.
        """

    async def determine(self, credential: Credential, principal: Principal, model: ModelId | None) -> None:
        """Ask the platform whether a key of its own may have a model (None: whether it knows the key)."""


class Directory(Protocol):
    """The facts, as the guard reads them."""

    async def gather(self, principal: Principal, models: Sequence[ModelId | None]) -> list[Facts]:
        """The facts about this caller and each of these models (None: no model), in order."""

    @property
    def epoch(self) -> int:
        """A number that changes whenever a record may have changed: while it is the same, none has."""

    def is_leased(self) -> bool:
        """Whether the lease itself holds, without degraded time."""

    def is_fresh(self, degraded_seconds: float) -> bool:
        """Whether anything may be answered now, degraded time included."""

    def verify_fresh(self, degraded_seconds: float) -> None:
        """Raises `Unavailable(NO_LEASE)` when nothing may be answered now."""

    def still_true(self, stamp: Stamp, degraded_seconds: float) -> bool:
        """The last check before the first byte: the lease holds and no record of the stamp has changed.

        Synchronous. Raises `Unavailable(NO_LEASE)` when there is no lease.
        """


class Catalogue(Protocol):
    """What is on disk, checked again there for the one file about to be served.

    Every method raises `Unavailable` where the content of the cache cannot be determined: its root is
    missing, its disk does not answer. None is called before a decision, so that the time it takes tells a
    caller without rights nothing (I3).
    """

    def models(self) -> Sequence[ModelId]:
        """The models on disk, sorted, as of the last scan."""

    def listed(self) -> Sequence[ListedPackage]:
        """Their servable packages as of the last scan, by model and package: where to search for a digest.

        The same object for as long as nothing in it changed.
        """

    async def packages(self, model: ModelId) -> tuple[PackageId, ...]:
        """The servable packages of a model, sorted, as they are on disk now. Empty when there are none."""

    async def listing(
        self, model: ModelId, package: PackageId, *, after: FileHandle | None = None, limit: int | None = None
    ) -> PackageListing | None:
        """A package's servable files, as they are on disk now; None when the package does not exist."""

    async def entries(
        self, model: ModelId, package: PackageId, handles: Sequence[FileHandle]
    ) -> Mapping[FileHandle, FileEntry]:
        """Those of these files that are servable in the package."""

    async def has(self, model: ModelId, package: PackageId, handle: FileHandle | None) -> bool:
        """Whether the package is servable, and this file in it."""

    async def find_blob(self, model: ModelId, package: PackageId, md5: Md5) -> FileHandle | None:
        """A file of this package that links this blob, if there is one."""

    async def open_file(self, model: ModelId, package: PackageId, handle: FileHandle) -> OpenFile | None:
        """Open a file safely; None when it does not exist.

        Raises `Refusal(UNSERVABLE)` when it is not as the engine would have left it.
        """

    def open_file_now(self, model: ModelId, package: PackageId, handle: FileHandle) -> OpenFile | None:
        """The same without waiting; None also where it would have to wait."""

    async def refresh(self, known: Iterable[ModelId]) -> None:
        """Scan the disk again, off the event loop; `known` ids name directories whose manifests do not."""


class Recorder(Protocol):
    """The audit log. Once there is a result, the record is as durable as configured (I5).

    A method returns its result, or a future of it where the disk is waited for elsewhere. Either raises
    `Unavailable(reason=NO_AUDIT)` when the record cannot be written.
    """

    def admit(self, admission: Admission) -> Receipt | Future[Receipt]:
        """Record an allow and return its receipt."""

    def record_all(
        self, decisions: Sequence[Admission | Rejection]
    ) -> list[Receipt | str] | Future[list[Receipt | str]]:
        """Record several decisions in one write: all of them are recorded, or none.

        For each in order: the receipt of an allow, the record id of a refusal.
        """

    def reject(self, rejection: Rejection) -> str | Future[str]:
        """Record a refusal and return the record's id."""

    def change(self, change: Change) -> ChangeReceipt | Future[ChangeReceipt]:
        """Record that a change is about to be made."""
