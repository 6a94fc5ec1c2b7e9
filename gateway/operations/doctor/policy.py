"""Doctor, the rules: those in force, and the folder that the next `policy apply` would read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.decision.policyset import validate
from gateway.operations.doctor.findings import fail, ok, warning
from gateway.operations.policy_folder import check_folder, plan_folder

if TYPE_CHECKING:
    from gateway.adapters.clock import SystemClock
    from gateway.configuration.settings import Settings
    from gateway.directory.reading.listing import Listing
    from gateway.operations.doctor.findings import Finding

MAX_SHOWN = 3  # problems in one finding; `cachegate policy check` shows all


async def check_policy(listing: Listing) -> Finding:
    """The set in force. Without a usable one everything is denied."""
    policy = await listing.find_policy()
    if policy is None:
        return fail("policy", "none is in force, so nothing is served", "run `cachegate policy apply`")
    found = f"digest {policy.digest[:16]}, {len(policy.policies)} files, generation {policy.generation}"
    problems = validate(policy)
    if problems:
        shown = "; ".join(map(str, problems[:MAX_SHOWN]))
        return fail(
            "policy", f"{found}; {len(problems)} problems: {shown}", "correct and apply the policy folder"
        )
    return ok("policy", found)


async def check_policy_folder(settings: Settings, listing: Listing, clock: SystemClock) -> Finding:
    """The folder: whether it may be applied, and whether applying it would change something."""
    name, path = "policy folder", settings.policies
    checked = check_folder(path, private_issuers=settings.private_issuers)
    is_without_cases = checked.cases is not None and not (path / "tests").is_dir()
    if checked.folder is None or not (checked.has_passed or is_without_cases):
        shown = "; ".join(checked.problems[:MAX_SHOWN]) or "its cases do not pass"
        return fail(name, f"{path}: {shown}", "run `cachegate policy check` and correct what it names")
    plan = await plan_folder(checked.folder, listing, clock.now())
    if is_without_cases and plan.is_empty:
        return warning(
            name,
            f"{path} is what is in force; it has no tests/, so no rule of it is tested here",
            "keep the cases beside the rules, so that `cachegate policy check` can run them",
        )
    if plan.is_empty:
        return ok(name, f"{path} is what is in force")
    return warning(
        name,
        f"{path} differs from what is in force ({len(plan.lines)} changes, {len(plan.conflicts)} conflicts)",
        "look with `cachegate policy diff`, then `cachegate policy apply`",
    )
