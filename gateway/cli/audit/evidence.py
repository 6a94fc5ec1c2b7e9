"""`cachegate audit`: proofs, the published schema, heads kept elsewhere, time stamps, another signing key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway.audit.head import fingerprint
from gateway.audit.heads_copy import compare_heads
from gateway.audit.proof import ProofError, check_proof
from gateway.audit.schema import record_schema
from gateway.cli.audit.sources import find_settings, load_trusted
from gateway.cli.distrust import Warnings
from gateway.model.errors import Misconfigured
from gateway.operations.audit_evidence import anchor_heads, check_stamps, make_proof, rotate_key
from gateway.terminal.console import AsJson, Note, Table, print_json, say, show, standard_output
from gateway.terminal.escaping import escape_controls
from gateway.terminal.record_lines import record_line

_MAX_PROOF_BYTES = 4 << 20

Folder = Annotated[
    Path | None, typer.Argument(metavar="[FOLDER]", help="An audit folder; the settings' folder if none.")
]
PublicKey = Annotated[Path | None, typer.Option(help="The public key that you trust (PEM).")]


def prove(
    folder: Folder = None,
    record: Annotated[str | None, typer.Option(help="Write the proof of the record with this id.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to; standard output if none.")] = None,
    check: Annotated[Path | None, typer.Option(help="Check this proof, without the log.")] = None,
    public_key: PublicKey = None,
    as_json: AsJson = False,
) -> None:
    """Prove one record without showing any other, or check a proof. Exit status 1 when it does not hold."""
    if (record is None) == (check is None):
        raise Misconfigured("audit prove", "takes either --record, or --check and --public-key")
    if record is not None:
        _write_proof(_folder(folder), record, out)
        return
    if check is None or public_key is None or folder is not None or out is not None:
        raise Misconfigured(
            "audit prove", "--check FILE takes --public-key KEY, and no folder: it needs no log"
        )
    keys = {fingerprint(key): key for key in load_trusted(public_key, Warnings())}
    try:
        raw = _read(check)
        proven = check_proof(raw, keys)
    except ProofError as error:
        document = {"proven": False, "why": str(error)}
        show(
            document,
            [Note(f"NOT PROVEN: {escape_controls(str(error))}.", "bold red")],
            as_json=as_json,
            is_yes=False,
        )
        return
    head = proven.head
    document = {
        "proven": True,
        "record": proven.values,
        "head": {
            "id": head.id,
            "chain": head.chain,
            "seq": head.seq,
            "time": head.time,
            "signer": head.signer,
        },
    }
    if not as_json:
        with standard_output():
            typer.echo(record_line(proven.record))
    note = (
        f"Proven: it is in the log as it was written, says the head of {head.time}, signed by {head.signer}."
    )
    show(document, [Note(escape_controls(note), "bold green")], as_json=as_json)


def schema(kind: Annotated[str | None, typer.Option(help="Of records of this kind alone.")] = None) -> None:
    """Print the JSON Schema of audit records."""
    print_json(record_schema(kind))


def heads(
    earlier: Annotated[Path, typer.Argument(help="The earlier copy of heads.jsonl, or its folder.")],
    later: Annotated[Path | None, typer.Argument(help="The later one; the settings' folder if none.")] = None,
    public_key: PublicKey = None,
    as_json: AsJson = False,
) -> None:
    """Check that heads go on from an earlier copy. Exit status 1 when they were cut or written anew."""
    trusted = load_trusted(public_key, Warnings())
    keys = {fingerprint(key): key for key in trusted} or None
    found = compare_heads(earlier, _folder(later), keys)
    document = {**msgspec.to_builtins(found), "continued": found.is_continued}
    note = (
        Note(
            f"All {found.earlier} heads of the earlier copy are there; {found.later - found.earlier} more.",
            "green",
        )
        if found.is_continued
        else Note(f"NOT THE SAME LOG: {escape_controls(found.why or '')}.", "bold red")
    )
    show(document, [note], as_json=as_json, is_yes=found.is_continued)


def anchor(
    folder: Folder = None,
    authority: Annotated[
        str | None, typer.Option(help="The URL of the time-stamp authority (RFC 3161).")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the stamps that are there.")] = False,
    roots: Annotated[Path | None, typer.Option("--roots", help="The authority's root certificates.")] = None,
    as_json: AsJson = False,
) -> None:
    """Have the signed heads time-stamped, or check the stamps. Exit status 1 when one does not hold."""
    if roots is None or (authority is None) != check:
        raise Misconfigured("audit anchor", "takes --roots FILE, and either --authority URL or --check")
    if authority is None:
        _show_stamps(_folder(folder), roots, as_json=as_json)
        return
    settings = find_settings(Warnings(), is_needed=True)
    if settings is None or folder is not None:
        raise Misconfigured("audit anchor", "stamps the settings' folder; name a folder only with --check")
    done = anchor_heads(settings, authority, roots)
    at = done.stamped_at.isoformat()
    note = f"Stamped at {at} by {escape_controls(authority)}: all heads up to byte {done.listed_bytes}."
    show(msgspec.to_builtins(done), [Note(note, "green")], as_json=as_json)


def rotate(as_json: AsJson = False) -> None:
    """Have another key sign the log, which the key in use signs. Start the gateway anew afterwards."""
    settings = find_settings(Warnings(), is_needed=True)
    if settings is None:
        raise Misconfigured("audit rotate-key", "needs the settings of an installation")
    done = rotate_key(settings)
    notes = [
        Note(f"The key {done.new} signs from now on; {done.old} signed it and is deleted.", "green"),
        Note("Running workers sign with the old key until they are started anew: do that now."),
        Note("Who trusts the old public key trusts the new one: see signing.changes in the audit folder."),
    ]
    show(msgspec.to_builtins(done), notes, as_json=as_json)


def _write_proof(folder: Path, record_id: str, out: Path | None) -> None:
    proof = make_proof(folder, record_id)
    if out is None:
        with standard_output():
            typer.echo(proof, nl=False)
        return
    try:
        out.write_bytes(proof)
    except OSError as error:
        raise Misconfigured(str(out), f"cannot be written ({error.strerror})") from error
    say(f"The proof is in {escape_controls(str(out))}.", style="green")


def _show_stamps(folder: Path, roots: Path, *, as_json: bool) -> None:
    found = check_stamps(folder, roots)
    is_good = bool(found) and all(one.why is None for one in found)
    rows = [
        (
            one.stamped_at.isoformat() if one.stamped_at else "-",
            one.listed_bytes,
            escape_controls(one.authority),
            escape_controls(one.why or "holds"),
        )
        for one in found
    ]
    table = Table("Time stamps", ("stamped at", "bytes of heads", "authority", "state"), rows, "No stamp.")
    document = {"intact": is_good, "stamps": msgspec.to_builtins(found)}
    show(document, [table], as_json=as_json, is_yes=is_good)


def _folder(given: Path | None) -> Path:
    if given is not None:
        return given
    settings = find_settings(Warnings(), is_needed=True)
    if settings is None:
        raise Misconfigured("audit", "name an audit folder, or run it where the settings are")
    return settings.audit_folder


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_PROOF_BYTES + 1)
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read ({error.strerror})") from error
