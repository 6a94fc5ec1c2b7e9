"""Doctor, the cache: whether we can read what the engine wrote, and only read it.

Each check is a function of what was found (`operations/cache/survey.py`, and the scan that the gateway itself
uses), so that each can be tested without a volume that is broken in just that way.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gateway.adapters.seen_cache_file import SeenCacheFile
from gateway.model.errors import CachegateError
from gateway.operations.cache.survey import CacheSurvey, find_fresh_resolutions, survey_cache
from gateway.operations.doctor.findings import fail, ok, run_check, stopped, warning
from gateway.resource.catalogue import CatalogueSettings
from gateway.resource.manifests import Manifests
from gateway.resource.naming import MODELS_CACHE, model_directory
from gateway.resource.scan import Looking, scan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.configuration.settings import Settings
    from gateway.model.clocks import Clock
    from gateway.model.names import ModelId
    from gateway.operations.doctor.findings import Finding
    from gateway.resource.scan import Survey

MAX_NAMED = 3  # names in one row
DAY_SECONDS = 86_400.0  # how long the engine uses an auto-resolution entry


def check_cache(settings: Settings, known: Iterable[ModelId], clock: Clock) -> list[Finding]:
    """All findings about the cache."""
    now = clock.now()
    scanned = scan(
        settings.cache_root,
        {model_directory(model): model for model in known},
        Looking(manifests=Manifests(clock, reads_all_here=True), now=now),
        SeenCacheFile(settings.seen_cache_file),
    )
    if not scanned.is_root_present:
        missing = f"{settings.cache_root} does not exist"
        return [
            fail("cache", missing, "mount it, or set CACHEGATE_CACHE_ROOT to the engine's INFERENCE_HOME")
        ]
    try:
        seen = survey_cache(settings.cache_root)
    except (CachegateError, OSError) as failure:
        return [judge_scan(scanned), stopped("cache walk", failure)]
    roots = CatalogueSettings(root=settings.cache_root, alias_roots=settings.alias_roots).link_roots
    return [
        run_check("cache", lambda: judge_scan(scanned)),
        run_check("manifests", lambda: judge_manifests(scanned, seen)),
        run_check("blobs", lambda: judge_blobs(seen)),
        run_check("cache is read only", lambda: check_read_only(settings)),
        run_check("links", lambda: judge_links(seen, roots)),
        run_check("old directories", lambda: judge_old(seen)),
        run_check("package names", lambda: judge_ambiguous(seen)),
        run_check(
            "client caches",
            lambda: judge_resolutions(find_fresh_resolutions(settings.cache_root, now - DAY_SECONDS)),
        ),
    ]


def judge_scan(scanned: Survey) -> Finding:
    """What the gateway's own scan finds."""
    if not scanned.is_readable:
        return fail("cache", scanned.problem or "it cannot be read", "run as the engine's user or group")
    found = f"{len(scanned.models)} models, {scanned.packages} packages, {scanned.skipped_total} left aside"
    first = next((f"{one.where}: {one.why}" for one in scanned.skipped), "")
    if scanned.unservable_packages > scanned.unreadable_manifests:
        return warning(
            "cache", f"{found}; {first}", "those packages are answered as absent; repair or remove them"
        )
    if scanned.unservable_files:
        return warning(
            "cache",
            f"{found}, and {scanned.unservable_files} files whose handle is too long; {first}",
            "they are answered as absent, the others of their packages are served; shorten the handles",
        )
    return ok("cache", found)


def judge_manifests(scanned: Survey, seen: CacheSurvey) -> Finding:
    """The engine writes manifests 0600: only its own user can read them."""
    if not scanned.unreadable_manifests:
        return ok("manifests", f"{seen.manifests} manifests, all readable")
    owners = ", ".join(sorted(seen.manifest_owners)) or "another user"
    return fail(
        "manifests",
        f"{scanned.unreadable_manifests} cannot be read by this user; they belong to {owners}",
        f"run the gateway as {owners}, or give its group the right to read (umask 027 for the engine)",
    )


def judge_blobs(seen: CacheSurvey) -> Finding:
    """A blob that is no readable file is not served and not hashed; the others are."""
    if not seen.bad_blobs:
        return ok("blobs", f"{seen.blobs} blobs, each a file that can be read")
    first = "; ".join(f"{name}: {problem}" for name, problem in list(seen.bad_blobs.items())[:MAX_NAMED])
    return warning(
        "blobs",
        f"{len(seen.bad_blobs)} that cannot be hashed: {first}",
        "they are answered as absent, the others are served; repair or remove them",
    )


def check_read_only(settings: Settings) -> Finding:
    """We never write below the cache root (I9); a read-only mount enforces that for any process."""
    name = "cache is read only"
    places = [settings.cache_root, settings.cache_root / MODELS_CACHE]
    writable = [str(place) for place in places if os.access(place, os.W_OK, effective_ids=True)]
    if not writable:
        return ok(name, "this user cannot write to it")
    return warning(
        name, f"this user could write to {writable[-1]}", "mount the cache read-only for the gateway"
    )


def judge_links(seen: CacheSurvey, roots: tuple[str, ...]) -> Finding:
    """A link names the root as its writer saw it; under any other root the file is not served."""
    foreign = {root: count for root, count in seen.link_roots.items() if root not in roots}
    if not foreign:
        return ok("links", f"all {sum(seen.link_roots.values())} point below {' or '.join(roots)}")
    shown = ", ".join(f"{count} below {root}" for root, count in sorted(foreign.items())[:MAX_NAMED])
    return warning(
        "links",
        f"links to blobs that no configured root explains: {shown}",
        "if that is this volume as its writers see it, add the path to CACHEGATE_ALIAS_ROOTS",
    )


def judge_old(seen: CacheSurvey) -> Finding:
    """Names of the engine's former scheme, under which two models can share one directory."""
    if not seen.old_directories:
        return ok("old directories", "none")
    return warning(
        "old directories",
        f"{len(seen.old_directories)} of the engine's former naming: {_some(seen.old_directories)}",
        "they are never served; let the engine load the models again, then remove them",
    )


def judge_ambiguous(seen: CacheSurvey) -> Finding:
    """Two packages whose names differ by case only: neither is served."""
    if not seen.ambiguous_packages:
        return ok("package names", "no two differ by case only")
    return warning(
        "package names",
        f"differ by case only, so neither is served: {_some(seen.ambiguous_packages)}",
        "remove the one that should not be there",
    )


def judge_resolutions(fresh: int) -> Finding:
    """Entries by which an engine on this folder loads models without asking the gateway."""
    name = "client caches"
    if not fresh:
        return ok(name, "no auto-resolution entry of the last 24 hours")
    return warning(
        name,
        f"{fresh} auto-resolution entries of the last 24 hours: an engine that uses this folder itself "
        "goes on loading those models for a day without asking anybody, revoked or not",
        "set AUTO_LOADER_CACHE_EXPIRATION_MINUTES=0 for the engines of tenants",
    )


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(listed[:MAX_NAMED]) + more
