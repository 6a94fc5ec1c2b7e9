"""Side effects of handing out links: tell the authority, and start hashing the files.

A link is followed by a download within moments. So the files that links were made for are opened and hashed
ahead of it, where they are not known yet: a large blob takes longer than a client waits. Each file is started
once and continues in the background, with one run a file however many callers wait (`pinning/`).

Where a platform decides, the links depend on its allow, and the authority must note how long they live:
otherwise they would end with the allow.
"""

from __future__ import annotations

import asyncio
import os
from sys import getsizeof
from typing import TYPE_CHECKING

from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Refusal, Unavailable
from gateway.resource.unservable import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from gateway.model.access import Principal
    from gateway.model.clocks import Clock
    from gateway.model.names import FileHandle, KeyId, ModelId, PackageId
    from gateway.model.ports import Catalogue
    from gateway.pinning.checks import PinChecks

    File = tuple[PackageId, FileHandle]

REMEMBERED_FILES = 16_384  # that were started; some 500 bytes each as a rule
REMEMBERED_BYTES = 8 << 20  # of their names
FILE_BYTES = 200  # of one, beside its names
MAX_BEGUN = 64  # files of one answer; the others are hashed when they are requested


class Minting:
    """What one worker does when links are handed out."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        pins: PinChecks,
        clock: Clock,
        link_seconds: float,
        note_links: Callable[[KeyId, ModelId, float], Awaitable[object]] | None,
        on_failure: Callable[[Unavailable], None],
        on_items_failed: Callable[[Sequence[tuple[str, str]], int], None],
    ) -> None:
        self._catalogue = catalogue
        self._pins = pins
        self._clock = clock
        self._link_seconds = link_seconds
        self._note_links = note_links
        self._on_failure = on_failure
        self.memory: BoundedMemory[tuple[ModelId, File], bool] = BoundedMemory(
            max_bytes=REMEMBERED_BYTES,
            max_entries=REMEMBERED_FILES,
            weigh=lambda begun, _: FILE_BYTES + sum(map(getsizeof, (begun[0], *begun[1]))),
        )
        self._on_items_failed = on_items_failed
        self._tasks: set[asyncio.Task[None]] = set()

    async def note(self, principal: Principal, model: ModelId, held: Iterable[File]) -> None:
        """Links are about to be handed out; `held` are those of their files that the cache has."""
        if self._note_links is not None and principal.is_of_platform:
            await self._note_links(principal.key_id, model, self._clock.now() + self._link_seconds)
        new = [file for file in held if (model, file) not in self.memory][:MAX_BEGUN]
        if not new:
            return
        for file in new:
            self.memory.put((model, file), True)
        task = asyncio.create_task(self._begin(model, new))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self, model: ModelId, files: Iterable[File]) -> None:
        """Have each file hashed, in the background."""
        for package, handle in files:
            await asyncio.sleep(0)
            try:
                opened = await self._catalogue.open_file(model, package, handle)
                if opened is None:
                    continue
                try:
                    await self._pins.determine(opened, wait_seconds=0)
                finally:
                    os.close(opened.descriptor)
            except Refusal:
                continue  # the request for that file reports why
            except Unavailable as failure:
                self._on_failure(failure)
            except Exception as defect:  # noqa: BLE001 -- it affects that file only; go on with the others
                item = f"{model} {package} {handle}"
                self._on_items_failed([(item, f"{type(defect).__name__}: {printable(str(defect))}")], 1)
