"""Verify that a copy of the audit folder is what was written.

Works on any copy, offline, in constant memory: each chain is read from its first line to its last and
compared with the signed heads; and each signed head, wherever it is, with `heads.jsonl`. It needs the public
key. A key given from outside proves the most, because anyone who can change the folder can change its
`signing.pub` as well; the report says which was used, and which keys in `signing.pub` are not among those
given. Printing and exit codes belong to the command.

The folder may be in use meanwhile: `heads.jsonl` is read before the segments, so that it never covers more
than is there, and lines added to it meanwhile are read after them.

The lines of `heads.jsonl` are linked too: a chain that was removed together with its heads leaves a gap
there, which is reported. Segments that retention removed are reported as such, as signed notes say which they
were (`notes.py`). And each head says what that file contained, so a file that was cut or started
again is reported by every head signed before.

A key that replaced a trusted one is trusted as well, if that one signed it (`key_changes.py`).

Not detected: what the holder of the signing key did; and removal of the newest segments together with the
end of `heads.jsonl`, from the first head that names them, before anything else was signed. Copies of heads
kept elsewhere show both.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gateway.audit.folder import HEADS_NAME, PUBLIC_KEY_NAME, group_segments, parse_segment_name
from gateway.audit.head import fingerprint, parse_public_keys
from gateway.audit.heads_evidence import HeadsEvidence
from gateway.audit.key_changes import KEY_CHANGES_NAME, follow, load_changes
from gateway.audit.notes import RETENTION_NAME, read_notes
from gateway.audit.packed import PACKED_SUFFIX
from gateway.audit.reading import has_same_content
from gateway.audit.report import VerifyReport
from gateway.audit.walk import Walk
from gateway.model.errors import Misconfigured, Reason, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from gateway.audit.notes import Notes


GIVEN = "given"
"""The `key_source` of a verification with keys from outside."""

_ATTEMPTS = 5


def verify(
    source: Path | Sequence[Path], *, trusted_keys: Iterable[Ed25519PublicKey] = (), key_source: str = GIVEN
) -> VerifyReport:
    """Verify an audit folder, or some of its files. Returns a report, damaged or not.

    `key_source` is for the report: where the trusted keys are from. Without keys, `signing.pub` is used.

    Raises `Misconfigured` when there is nothing to verify or no key to verify with, `Unavailable`
    when a file cannot be read. Without `heads.jsonl` among the files, truncation is not detected.
    """
    paths = _paths(source)
    segments = group_segments(paths)
    by_name = {path.name: path for path in paths}
    heads_path = by_name.get(HEADS_NAME)
    if not segments and heads_path is None:
        raise Misconfigured(
            str(paths[0].parent if paths else source),
            "holds no audit segments; name an audit folder or its files",
        )
    keys = {fingerprint(key): key for key in trusted_keys}
    published = by_name.get(PUBLIC_KEY_NAME)
    foreign = _foreign(keys, published) if keys else ()
    if not keys:
        published = published or (heads_path or next(iter(segments.values()))[0][1]).with_name(
            PUBLIC_KEY_NAME
        )
        keys, key_source = _load(published), str(published)
    keys, change_problems = _follow(keys, by_name.get(KEY_CHANGES_NAME))
    foreign = tuple(one for one in foreign if one not in keys)
    with HeadsEvidence(heads_path, keys) as evidence:
        evidence.read()
        segments = group_segments(_paths(source))  # after the heads: every chain they name exists by now
        notes = _notes(source, keys)  # after the segments: what is not there has its note by now
        walks = {
            chain: walk
            for chain, numbered in segments.items()
            if (walk := _walked(chain, numbered, keys, evidence, notes, source)) is not None
        }
        evidence.read(is_again=True)
        for chain, walk in walks.items():
            again = (
                _walked(chain, segments[chain], keys, evidence, notes, source)
                if walk.is_overtaken()
                else None
            )
            walks[chain] = again or walk
            walks[chain].compare()
    problems = [*change_problems, *evidence.problems, *notes.problems, *_differing(_paths(source))]
    gone = _missing(evidence.named - walks.keys(), source)
    if gone:
        notes = _notes(source, keys)  # a chain may have been removed meanwhile
    removed = tuple(chain for chain in gone if notes.has_whole(chain, evidence.listed(chain)))
    if heads_path is None and isinstance(source, Path) and source.is_dir():
        problems.append(f"{HEADS_NAME} is missing, so records cut off at the end of a chain would not show")
    return VerifyReport(
        chains=tuple(walk.report() for walk in walks.values()),
        missing_chains=tuple(chain for chain in gone if chain not in removed),
        removed_chains=removed,
        problems=tuple(problems),
        key_source=key_source,
        signers=tuple(sorted(keys)),
        foreign_signers=foreign,
    )


def _walked(
    chain: str,
    numbered: Sequence[tuple[int, Path]],
    keys: Mapping[str, Ed25519PublicKey],
    evidence: HeadsEvidence,
    notes: Notes,
    source: Path | Sequence[Path],
) -> Walk | None:
    """The walk through a chain; None if the whole chain was removed meanwhile.

    When a segment is removed while it is read, the walk begins again with those that are there.
    """
    for _ in range(_ATTEMPTS):
        walk = Walk(chain, keys, evidence)
        try:
            walk.run(numbered, removed=notes)
        except Unavailable as failure:
            if not isinstance(failure.__cause__, FileNotFoundError):
                raise
            numbered, notes = group_segments(_paths(source)).get(chain, ()), _notes(source, keys)
            if not numbered:
                return None
        else:
            return walk
    raise Unavailable("audit", f"segments of {chain} are removed all the while; try again", Reason.NO_AUDIT)


def _notes(source: Path | Sequence[Path], keys: Mapping[str, Ed25519PublicKey]) -> Notes:
    """The notes of what retention removed, as they are now."""
    return read_notes(next((path for path in _paths(source) if path.name == RETENTION_NAME), None), keys)


def _differing(paths: Iterable[Path]) -> Iterator[str]:
    """Segments that are there both plain and packed, and are not the same."""
    plain = {path for path in paths if parse_segment_name(path.name)}
    for path in sorted(plain):
        packed = path.with_name(path.name + PACKED_SUFFIX)
        if packed in plain and not has_same_content(path, packed):
            yield f"{packed.name} is not {path.name}, which is there as well: they differ"


def _missing(chains: Iterable[str], source: Path | Sequence[Path]) -> tuple[str, ...]:
    """Those of these chains that do not exist. Lists again: one may have begun during the walk."""
    candidates = set(chains)
    return tuple(sorted(candidates - group_segments(_paths(source)).keys())) if candidates else ()


def _paths(source: Path | Sequence[Path]) -> list[Path]:
    """The files to verify; a folder stands for the files in it."""
    listed = [source] if isinstance(source, Path) else list(source)
    try:
        return [file for path in listed for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    except OSError as error:
        raise Misconfigured(str(source), f"cannot be listed ({error.strerror})") from error


def _follow(
    keys: dict[str, Ed25519PublicKey], path: Path | None
) -> tuple[dict[str, Ed25519PublicKey], tuple[str, ...]]:
    """These keys and those that they signed, and what is wrong with the file that says so."""
    if path is None:
        return keys, ()
    try:
        return follow(keys, load_changes(path)), ()
    except (OSError, ValueError) as error:
        return keys, (f"{path.name}: {error}",)


def _foreign(keys: Iterable[str], public_key_path: Path | None) -> tuple[str, ...]:
    """The keys in a `signing.pub` that are not among these."""
    if public_key_path is None:
        return ()
    return tuple(sorted(_load(public_key_path).keys() - set(keys)))


def _load(path: Path) -> dict[str, Ed25519PublicKey]:
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            str(path), f"cannot be read ({error.strerror}); give the public key that you trust"
        ) from error
    return parse_public_keys(pem, str(path))
