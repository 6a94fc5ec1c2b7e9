"""Verify that a copy of the audit folder is what was written.

Works on any copy, offline, in constant memory: each chain is walked from its first line to its last
and compared with the signed heads. It needs the public key: a key that is given from outside proves
the most, because whoever can change the folder can change its `signing.pub` as well; the report says
which was used. The folder may be in use meanwhile: heads are read before the segments, so they never
vouch for more than is there. Printing and exit codes are the command's.

Not shown by any of this: what somebody did who holds the signing key, or who took the newest
segments away together with every head that vouches for them. Heads that were copied elsewhere show it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.audit.folder import HEADS_NAME, PUBLIC_KEY_NAME, group_segments
from gateway.audit.head import fingerprint, parse_public_keys
from gateway.audit.report import ChainReport, Report
from gateway.audit.walk import Walk
from gateway.audit.witness import Witness, load_witness
from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def verify(source: Path | Sequence[Path], *, trusted_keys: Iterable[Ed25519PublicKey] = ()) -> Report:
    """Verify an audit folder, or some of its files. Returns what was found, damaged or not.

    Raises `Misconfigured` when there is nothing to verify or no key to verify with, `Unavailable`
    when a file cannot be read. Without `heads.jsonl` among the files, truncation does not show.
    """
    is_folder = isinstance(source, Path) and source.is_dir()
    paths = _paths(source)
    segments = group_segments(paths)
    by_name = {path.name: path for path in paths}
    heads_path = by_name.get(HEADS_NAME)
    if not segments and heads_path is None:
        raise Misconfigured(
            str(paths[0].parent if paths else source),
            "holds no audit segments; name an audit folder or its files",
        )
    keys, key_source = _keys(trusted_keys, by_name.get(PUBLIC_KEY_NAME), segments, heads_path)
    witness = load_witness(heads_path, keys) if heads_path else Witness()
    named = set(witness.named)
    reports: list[ChainReport] = []
    unlisted: dict[str, int] = {}
    for chain, numbered in segments.items():
        walk = Walk(chain, keys, witness.newest.get(chain))
        reports.append(walk.run(numbered))
        named |= walk.named
        unlisted[chain] = walk.head_before_last_seq
    problems = list(witness.problems)
    if heads_path is not None:
        # Once more, because a chain that is being written grew meanwhile, and its heads with it.
        listed = load_witness(heads_path, keys).newest
        problems += [
            f"{HEADS_NAME} lacks signed heads that the chain {chain} has"
            for chain, seq in unlisted.items()
            if seq > (listed[chain].seq if chain in listed else 0)
        ]
    elif is_folder:
        problems.append(f"{HEADS_NAME} is missing, so records cut off at the end of a chain would not show")
    return Report(
        chains=tuple(reports),
        missing_chains=tuple(sorted(named - set(segments))),
        problems=tuple(problems),
        key_source=key_source,
        signers=tuple(sorted(keys)),
    )


def _paths(source: Path | Sequence[Path]) -> list[Path]:
    """The files to look at; a folder stands for those in it."""
    listed = [source] if isinstance(source, Path) else list(source)
    try:
        return [file for path in listed for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    except OSError as error:
        raise Misconfigured(str(source), f"cannot be listed ({error.strerror})") from error


def _keys(
    trusted_keys: Iterable[Ed25519PublicKey],
    public_key_path: Path | None,
    segments: dict[str, list[tuple[int, Path]]],
    heads_path: Path | None,
) -> tuple[dict[str, Ed25519PublicKey], str]:
    """The keys to verify with, and where they are from."""
    given = {fingerprint(key): key for key in trusted_keys}
    if given:
        return given, "given"
    if public_key_path is None:
        beside = heads_path or next(iter(segments.values()))[0][1]
        public_key_path = beside.with_name(PUBLIC_KEY_NAME)
    try:
        pem = public_key_path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            str(public_key_path), f"cannot be read ({error.strerror}); give the public key that you trust"
        ) from error
    return parse_public_keys(pem, str(public_key_path)), str(public_key_path)
