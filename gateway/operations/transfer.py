"""Write the facts to a file, and a file's facts to this server. Pins, attestations and origins are left out.

Both are in the audit log. A file is read and compared from its first line to its last before the first fact
is written. Then it is written in transactions of some thousand facts, each with a record of its own, and the
workers are waited for once, at the end.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from gateway.decision.policyset import digest_of, validate
from gateway.directory.transfer.file import end_line, header_line, read_lines
from gateway.directory.transfer.lines import Fact, fact_line
from gateway.directory.transfer.whole import BATCH, Comparison, bring_in, compare, each_fact
from gateway.model.errors import Conflict, Misconfigured
from gateway.model.facts import PolicySet
from gateway.model.trusted_files import open_trusted, refusal_of
from gateway.operations.policy_folder import find_rule_changes, recorded_rules
from gateway.terminal.progress import counting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from gateway.barrier import BarrierReport
    from gateway.directory.edits.changes import Changes
    from gateway.directory.transfer.file import Header
    from gateway.operations.session import OperatorSession

SHOWN = 10  # names of conflicting facts that are shown; the rest is counted


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an export."""

    file: str
    facts: int
    generation: int


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an import."""

    compared: Comparison
    generation: int
    barrier: BarrierReport | None


async def export_facts(session: OperatorSession, file: Path) -> Exported:
    """Write the facts into a new file: the policy, tenants, rules, aliases, grants, keys by digest."""
    begun = await session.perform("directory.export", _change_nothing, subject=(file.name,), wait=False)
    with _written(file) as out, counting("exporting") as bar:
        out.write(
            header_line(
                generation=begun.generation,
                history=await session.store.history() or "",
                peppers=session.peppers.fingerprints(),
            )
        )
        count = 0
        async for fact in each_fact(session.listing, bar.expect):
            out.write(fact_line(fact))
            bar.advance()
            count += 1
        generation = await session.store.generation()
        out.write(end_line(facts=count, generation=generation))
        if session.unreadable:
            raise Conflict(
                "records that do not parse cannot be exported: "
                + ", ".join(list(dict.fromkeys(session.unreadable))[:SHOWN])
            )
    return Exported(file=str(file), facts=count, generation=generation)


async def import_facts(session: OperatorSession, file: Path, *, merge: bool) -> Imported:
    """Write the facts of a file. Raises `Conflict` if there are others by the same names, unless `merge`."""
    compared, digest = await _compare(session, file)
    if compared.other and not merge:
        raise Conflict(
            f"{len(compared.other)} facts are there already and say something else, among them "
            f"{', '.join(compared.other[:SHOWN])}; nothing was changed. --merge replaces them"
        )
    return await _import(session, file, digest, compared, merge=merge)


async def _compare(session: OperatorSession, file: Path) -> tuple[Comparison, str]:
    """Compare the whole file with the server; also returns the file's SHA-256, for the record."""
    digest = sha256()
    compared = Comparison()
    with _read(file) as lines, counting("checking") as bar:

        def hashed() -> Iterator[bytes]:
            for line in lines:
                digest.update(line)
                yield line

        header, facts = read_lines(hashed(), str(file))
        _verify_peppers(session, header)
        for batch in _batches(facts):
            for fact in batch:
                _verify_policy(fact, file)
            compared += await compare(session.listing, batch)
            bar.advance(len(batch))
    return compared, digest.hexdigest()


async def _import(
    session: OperatorSession, file: Path, digest: str, compared: Comparison, *, merge: bool
) -> Imported:
    """Write the file's facts, batch by batch, and wait for the workers after the last one."""
    total = compared.new + compared.same + len(compared.other)
    wrote = Comparison()
    subject = (file.name, f"sha256 {digest}")
    with _read(file) as lines, counting("importing", total) as bar:
        header, facts = read_lines(lines, str(file))
        _verify_peppers(session, header)
        done = 0
        for batch in _batches(facts):
            part = (*subject, f"facts {done + 1} to {done + len(batch)}", *(("merge",) if merge else ()))
            part += await _recorded_policy(session, batch)
            made = await session.perform(
                "directory.import", partial(bring_in, facts=batch, merge=merge), subject=part, wait=False
            )
            wrote += made.result
            done += len(batch)
            bar.advance(len(batch))
    # A last change, which changes nothing: its barrier is that of all of them.
    last = await session.perform("directory.import", _change_nothing, subject=(*subject, "done"))
    return Imported(compared=wrote, generation=last.generation, barrier=last.barrier)


async def _recorded_policy(session: OperatorSession, batch: list[Fact]) -> tuple[str, ...]:
    """A batch's changes of the rules, for its record, as `policy apply` records them."""
    for fact in batch:
        if isinstance(fact, PolicySet):
            rules = recorded_rules(await find_rule_changes(fact, session.listing))
            return (f"digest {fact.digest}", *rules)
    return ()


async def _change_nothing(_changes: Changes) -> None:
    """A change without an effect, for its record: who exported the facts, and when an import was complete."""


def _verify_peppers(session: OperatorSession, header: Header) -> None:
    """Raise if the file's keys were hashed under peppers that this node lacks: all would be unknown.

    The fingerprints of this node's own peppers are in the store already, since a session was opened.
    """
    own = session.peppers.fingerprints()
    for pepper_id, fingerprint in header.peppers.items():
        if own.get(pepper_id) != fingerprint:
            raise Misconfigured(
                str(session.settings.pepper_folder),
                f"does not hold the pepper {pepper_id} under which the file's keys are stored: copy the "
                "pepper folder from the node that wrote the file",
            )


def _verify_policy(fact: Fact, file: Path) -> None:
    """Raise for a policy that `policy apply` would refuse."""
    if not isinstance(fact, PolicySet):
        return
    problems = validate(fact)
    if problems or digest_of(fact.schema, fact.policies) != fact.digest:
        raise Misconfigured(
            str(file),
            f"its policy may not be applied: {problems[0] if problems else 'its digest is not its own'}",
        )


def _batches(facts: Iterable[Fact]) -> Iterator[list[Fact]]:
    waiting = iter(facts)
    while batch := list(islice(waiting, BATCH)):
        yield batch


@contextmanager
def _read(file: Path) -> Iterator[BinaryIO]:
    """Open a file that only its owner can change: it is read twice, and must be the same both times."""
    with ExitStack() as opened:
        try:
            lines = opened.enter_context(open_trusted(file))
        except OSError as error:
            raise Misconfigured(str(file), f"cannot be read: {refusal_of(file, error)}") from error
        yield lines


@contextmanager
def _written(file: Path) -> Iterator[BinaryIO]:
    """A new file, which gets its name only once it is complete and on disk. Readable by its owner alone."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            os.link(unfinished, file)
        finally:
            with suppress(FileNotFoundError):
                unfinished.unlink()
    except FileExistsError as error:
        raise Misconfigured(str(file), "is there already; name a new file") from error
    except OSError as error:
        raise Misconfigured(str(file), f"cannot be written: {error.strerror}") from error
