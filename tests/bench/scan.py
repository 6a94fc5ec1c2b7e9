"""The catalogue at size: what scanning a large cache takes, and how it affects requests.

    .venv/bin/python tests/bench/scan.py [--quick] [--packages N] [--json FILE]

Makes a cache of 100,000 packages with 300,000 links, in the engine's layout, and measures a worker's
catalogue of it in this process: the first scan, the later ones, how soon a new model is listed, its memory,
and the longest that the event loop had to wait meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tempfile
import time
import tracemalloc
from hashlib import md5
from pathlib import Path

from program import amount_of, arguments_of, run
from report import Report, console, quantile
from rich.progress import track

from gateway.adapters.clock import SystemClock
from gateway.resource.catalogue import CatalogueSettings, DiskCatalogue
from gateway.resource.naming import model_directory

PACKAGES_PER_MODEL = 2
LINKS_PER_PACKAGE = 3
SCAN_SECONDS = 1.0  # the shipped setting, and four looks from outside in it
LOOKS_PER_SCAN = 4


def write_model(root: Path, number: int) -> str:
    """A model with its packages: one blob of its own in each, two that all models share."""
    model = f"tenant{number % 1000}/model-{number}/1"
    folder = root / "models-cache" / model_directory(model)
    shared = [md5(b"%d" % one, usedforsecurity=False).hexdigest() for one in (number % 97, number % 89)]
    for package in range(PACKAGES_PER_MODEL):
        own = md5(b"%d/%d" % (number, package), usedforsecurity=False).hexdigest()
        place = folder / f"p{package}"
        place.mkdir(parents=True)
        handles = dict(zip(("a.json", "b.txt", "weights.onnx"), (*shared, own), strict=True))
        for handle, digest in handles.items():
            (place / handle).symlink_to(f"{root}/shared-blobs/{digest}")
        listed = [{"file_handle": handle, "md5_hash": digest} for handle, digest in handles.items()]
        manifest = {"offline_manifest_version": 4, "canonical_model_id": model, "package_artifacts": listed}
        (place / "model_config.json").write_text(json.dumps(manifest))
    return model


class Pauses:
    """How long the event loop was away, beyond the millisecond that was asked for."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []

    async def watch(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.milliseconds.append(max(0.0, (time.perf_counter() - before) * 1000 - 1))


async def scanned(catalogue: DiskCatalogue) -> tuple[float, float, list[float]]:
    """One look: its seconds, its CPU seconds, and the pauses meanwhile."""
    pauses = Pauses()
    watch = asyncio.create_task(pauses.watch())
    await asyncio.sleep(0.01)
    began, cpu = time.perf_counter(), time.process_time()
    await catalogue.refresh(())
    taken = time.perf_counter() - began, time.process_time() - cpu
    watch.cancel()
    return *taken, pauses.milliseconds


async def until_listed(catalogue: DiskCatalogue, root: Path, number: int) -> float:
    """How long a new model takes to be listed, looked for as a worker does."""
    model = write_model(root, number)
    began = time.perf_counter()
    while model not in catalogue.models():
        await asyncio.sleep(SCAN_SECONDS / LOOKS_PER_SCAN)
        if catalogue.has_moved():
            await catalogue.refresh(())
    return time.perf_counter() - began


async def measure(root: Path, packages: int, report: Report) -> None:
    """All of it."""
    catalogue = DiskCatalogue(CatalogueSettings(root=root), SystemClock())
    seconds, cpu, pauses = await scanned(catalogue)
    survey = catalogue.state().survey
    if survey.packages != packages or survey.skipped_total:
        raise RuntimeError(f"{survey.packages} packages were found, and {survey.skipped_total} skipped")
    report.figure("first_scan_s", seconds, meaning=f"the first scan of {packages:,} packages")
    report.row("first_scan_cpu_s", cpu, "CPU seconds of it")
    report.figure(
        "first_scan_pause_ms_p99",
        quantile(pauses, 0.99),
        meaning="what the event loop waited, 99 in a hundred",
    )
    report.row("first_scan_pause_ms_max", max(pauses), "the longest of these")
    later = [await scanned(catalogue) for _ in range(5)]
    report.figure(
        "later_scan_s", quantile([one[0] for one in later], 0.5), meaning="a scan when little moved"
    )
    report.row(
        "later_scan_pause_ms_max", max(max(one[2]) for one in later), "the longest that the loop waited"
    )
    appeared = [await until_listed(catalogue, root, 10_000_000 + number) for number in range(5)]
    report.figure(
        "seen_after_s", max(appeared), target=2.0, meaning="until a new model is listed, the worst of 5"
    )


async def measure_memory(root: Path, packages: int, report: Report) -> None:
    """By itself: tracing memory slows everything else down."""
    gc.collect()
    tracemalloc.start()
    catalogue = DiskCatalogue(CatalogueSettings(root=root), SystemClock())
    await catalogue.refresh(())
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    report.figure("bytes_per_package", held / packages, meaning="of the worker's memory, its models included")


def main() -> int:
    """Measure, print, write."""
    parser = arguments_of(str(__doc__), "5,000 packages")
    parser.add_argument("--packages", type=int, default=100_000)
    chosen = parser.parse_args()
    packages = amount_of(chosen, full=chosen.packages, quick=5_000, smoke=200)
    title = f"The catalogue of {packages:,} packages with {packages * LINKS_PER_PACKAGE:,} links"

    def measured(report: Report) -> None:
        with tempfile.TemporaryDirectory(prefix="catalogue-bench-") as folder:
            root = Path(folder)
            models = range(packages // PACKAGES_PER_MODEL)
            for number in track(models, "writing the cache", console=console, transient=True):
                write_model(root, number)
            time.sleep(2.5)  # change times that are too young are not believed; caches are older than that
            asyncio.run(measure(root, packages, report))
            asyncio.run(measure_memory(root, packages, report))

    return run(title, measured, chosen)


if __name__ == "__main__":
    sys.exit(main())
