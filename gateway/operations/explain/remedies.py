"""Remedies where something other than the rules prevents access: the key, its tenant, the disk.

The remedies for rules are found by trying (`decision/remedies.py`). These follow from the reason: each names
the one thing that is wrong, and the command that corrects it where there is one.
"""

from __future__ import annotations

from difflib import get_close_matches
from shlex import quote
from typing import TYPE_CHECKING

from gateway.decision.remedies import Help, Remedy
from gateway.model.errors import Reason
from gateway.model.facts import FOLDER_SOURCE
from gateway.model.moments import when

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.decision.remedies import Step
    from gateway.model.facts import Key, Tenant
    from gateway.model.names import ModelId
    from gateway.operations.explain.disk import DiskState

NEAREST = 1  # names that are suggested for an unknown one


def key_steps(problem: Reason, key: Key, tenant: Tenant | None, address: str | None) -> tuple[Step, ...]:
    """What would make a key valid that is refused for this reason, or which other key would do."""
    step: Step
    match problem:
        case Reason.REVOKED_KEY:
            step = (_another_key(key, f"another key: {key.key_id} was revoked, for good"),)
        case Reason.DISABLED_KEY:
            enable = f"cachegate keys enable {key.key_id}"
            step = (Remedy(kind=Help.KEY, text="the key to be enabled again", command=enable),)
        case Reason.DECOY_KEY:
            step = (_another_key(key, f"another key: {key.key_id} is a decoy and opens nothing"),)
        case Reason.EXPIRED_KEY:
            step = (_another_key(key, f"another key: this one ended at {when(key.expires_at)}"),)
        case Reason.NOT_YET_VALID:
            wait = Remedy(kind=Help.WAIT, text=f"to wait until {when(key.not_before)}, when the key begins")
            step = (wait, _another_key(key, "another key, which begins now"))
        case Reason.OUTSIDE_NETWORKS:
            text = f"to ask from one of the key's networks: {' '.join(key.networks)}"
            new = _another_key(key, f"another key, for {address}", networks=(address,) if address else ())
            step = (Remedy(kind=Help.NETWORK, text=text), new)
        case Reason.SUSPENDED_TENANT:
            step = (_tenant_back(key, tenant),)
        case Reason.UNKNOWN_KEY:
            text = "the platform to be asked (CACHEGATE_AUTHORITY=platform): the key is its own, not ours"
            step = (Remedy(kind=Help.PLATFORM, text=text),)
        case Reason.REVOKED_BINDING | Reason.UNMAPPED_TOKEN:
            step = (_binding_back(problem, key),)
        case _:
            text = f"records of the key and its tenant that parse ({problem}: `cachegate doctor` names them)"
            step = (Remedy(kind=Help.RECORD_REPAIR, text=text),)
    return (step,)


def disk_steps(disk: DiskState, asked: ModelId, known: Iterable[str]) -> tuple[Step, ...]:
    """What has to be on disk for an allowed read to be served."""
    if disk.is_there or disk.reason is None:
        return ()
    md5, model = disk.md5, disk.model or asked
    match disk.reason:
        case Reason.QUARANTINED:
            text = f"the blob {md5} to be repaired and let out of quarantine: {disk.found}"
            return ((Remedy(kind=Help.BLOB, text=text, command=f"cachegate cache release {md5}"),),)
        case Reason.UNATTESTED:
            text = (
                f"somebody's word that {model} has the blob {md5}: the provider's metadata, or an operator's"
            )
            command = f"cachegate cache attest --digests {md5} -- {quote(model)}"
            return ((Remedy(kind=Help.ATTESTATION, text=text, command=command),),)
        case Reason.ABSENT:
            text = f"the engine to load it: {disk.found} ({disk.directory})"
            meant = get_close_matches(asked, sorted({*known} - {asked}), n=NEAREST)
            load = Remedy(kind=Help.DISK, text=text)
            if not meant:
                return ((load,),)
            nearest = Remedy(kind=Help.MODEL_NAME, text=f"another name to be meant: {meant[0]} is on disk")
            return ((load, nearest),)
        case _:
            return ((Remedy(kind=Help.DISK, text=f"the cache as the engine leaves it: {disk.found}"),),)


def _another_key(key: Key, text: str, *, networks: tuple[str, ...] = ()) -> Remedy:
    """A key with the same scopes that is valid now."""
    whose = f"--tenant={key.tenant}" if key.tenant else "--admin"
    scopes = f" --scopes {' '.join(sorted(key.scopes))}" if key.scopes else ""
    bound = f" --networks {' '.join(networks)}" if networks else ""
    return Remedy(kind=Help.KEY, text=text, command=f"cachegate keys create {whose}{scopes}{bound}")


def _binding_back(problem: Reason, key: Key) -> Remedy:
    """What would make the tokens of a binding's subject count."""
    if problem is Reason.UNMAPPED_TOKEN:
        text = "a rule in policies/issuers by which it came: none of them is in force for its tenant"
        return Remedy(kind=Help.KEY, text=text)
    text = "the binding to be forgotten: a token of its subject that a rule matches makes another"
    return Remedy(kind=Help.KEY, text=text, command=f"cachegate bindings forget {key.key_id}")


def _tenant_back(key: Key, tenant: Tenant | None) -> Remedy:
    if tenant is None:
        text = f"the tenant {key.tenant} to be there: its keys are refused"
        return Remedy(kind=Help.TENANT, text=text, command=f"cachegate tenants create {key.tenant}")
    command, text = f"cachegate tenants resume {key.tenant}", f"the tenant {key.tenant} to be resumed"
    if tenant.source.startswith(FOLDER_SOURCE):
        text += f", in its document ({tenant.source}) and by `cachegate policy apply`"
        command = f"cachegate tenants resume --force {key.tenant}"
    return Remedy(kind=Help.TENANT, text=text, command=command)
