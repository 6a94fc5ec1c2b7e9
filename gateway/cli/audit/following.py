"""`cachegate audit follow`: the audit log of all nodes, as one stream of JSON lines on standard output.

It goes through running gateways, with a key that reads the log, and needs neither their machines nor their
folders. Records are printed as they were written; each is on standard output before its cursor is noted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.configuration.sources import load_gateway
from gateway.model.errors import Misconfigured
from gateway.operations.audit_follow import CursorFile, Follow, FollowedNode, FollowedPage
from gateway.terminal.console import forget_output, say
from gateway.terminal.escaping import escape_controls, escape_controls_in_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.adapters.feed_client import FeedClient

CURSOR_FILE = Path("cachegate-cursors.json")


class _Nodes:
    """The nodes as the gateway lists them."""

    def __init__(self, client: FeedClient) -> None:
        self._client = client
        self._told: set[str] = set()

    def nodes(self) -> list[FollowedNode]:
        """Those that can be read: by their own address, or the only one by that of the gateway."""
        listed = self._client.list_nodes()
        found: list[FollowedNode] = []
        for one in listed:
            url = one.url or (self._client.url if one.is_this and len(listed) == 1 else None)
            if url is None:
                self._tell_once(f"{one.node} is not followed: it has no CACHEGATE_NODE_URL")
            elif not self._client.may_be_told(url):
                self._tell_once(f"{one.node} is not followed: {url} is not encrypted, and CACHEGATE_URL is")
            else:
                found.append(FollowedNode(one.node, url))
        return found

    def read(self, url: str, after: str | None, *, waits: bool) -> FollowedPage:
        """One page of a node."""
        page = self._client.read(url, after) if waits else self._client.read(url, after, wait_seconds=0.0)
        return FollowedPage([bytes(one.record) for one in page.events], page.next, page.at_end)

    def _tell_once(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            _tell(what)


def follow(
    cursor_file: Annotated[
        Path, typer.Option(help="Where it is noted how far each node was read; made if it is not there.")
    ] = CURSOR_FILE,
    once: Annotated[bool, typer.Option("--once", help="End when every node was read to its end.")] = False,
    from_end: Annotated[
        bool, typer.Option("--from-end", help="Leave out what a node had when it was first read.")
    ] = False,
) -> None:
    """Print the records of all nodes as JSON lines, through CACHEGATE_URL, from where it ended last."""
    named = load_gateway()
    if named is None:
        raise Misconfigured(
            "CACHEGATE_URL",
            "is not set: this reads through a running gateway. The log of this machine alone is followed by "
            "`audit tail --follow`",
        )
    # Only this command needs an HTTP client here.
    from gateway.adapters.feed_client import FeedClient  # noqa: PLC0415

    source = _Nodes(FeedClient(*named))
    run = Follow(source, CursorFile(cursor_file), _write, _tell, is_once=once, is_from_end=from_end)
    try:
        run.run()
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except BrokenPipeError:
        forget_output()
        raise typer.Exit(0) from None


def _write(lines: Sequence[bytes]) -> None:
    """Print lines, all of them handed to the system before their cursor is noted."""
    if sys.stdout.isatty():
        for line in lines:
            typer.echo(escape_controls_in_json(line.decode()))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(b"".join([line + b"\n" for line in lines]))
    sys.stdout.buffer.flush()


def _tell(what: str) -> None:
    say(escape_controls(what), style="yellow")
