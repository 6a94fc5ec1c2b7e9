"""What the server says that a workflow will load and do: its answer to `describe_workload`.

The answer is read strictly, because it decides what is authorised: a kind of thing that is not known here
means that something would go unauthorised, so the whole answer is refused. Where the server itself says that
it does not know all (`complete` is false), only one cause passes: a value that comes from an input of the
request, which is known by then. What custom Python does is unknown by its nature: its step passes as such.

The answer is experimental for its server's authors; what a server reports to have loaded is compared with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.front_door.workflows.specification import INPUTS, refused
from gateway.model.errors import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.front_door.workflows.specification import Specification

PYTHON = "custom_python"
EXTERNAL = "external_request"
MAX_RESOURCES = 1024
"""Of all steps: 256 steps of a model and a project each are half of it."""


class _Problem(msgspec.Struct, frozen=True, tag_field="type", tag="discovery_problem_v1"):
    code: str
    details: dict[str, Any] = {}


class _Model(msgspec.Struct, frozen=True, tag_field="type", tag="roboflow_platform_model_v1"):
    model_id: str
    execution_location: str | None = None


class _Project(msgspec.Struct, frozen=True, tag_field="type", tag="roboflow_platform_project_v1"):
    project_url: str


class _ThirdParty(msgspec.Struct, frozen=True, tag_field="type", tag="third_party_model_v1"):
    provider: str
    model_id: str


class _Resource(msgspec.Struct, frozen=True, tag_field="type", tag="dependent_resource_v1"):
    metadata: _Model | _Project | _ThirdParty


class _Resources(msgspec.Struct, frozen=True, tag_field="type", tag="discovery_v1"):
    items: list[_Resource]
    complete: bool
    unknown_reasons: list[_Problem]


class _Operations(msgspec.Struct, frozen=True, tag_field="type", tag="discovery_v1"):
    items: list[str]
    complete: bool
    unknown_reasons: list[_Problem]


class _Step(msgspec.Struct, frozen=True, tag_field="type", tag="step_metadata_v1"):
    node_id: str
    block_type: str
    resources: _Resources
    operations: _Operations


class _Node(msgspec.Struct, frozen=True, tag_field="type", tag="graph_node_v1"):
    id: str
    kind: str


class _Answer(msgspec.Struct, frozen=True, tag_field="type", tag="workflow_introspection_v1"):
    nodes: list[_Node]
    steps: list[_Step]


_answers = msgspec.json.Decoder(_Answer)


class StepWork(msgspec.Struct, frozen=True, kw_only=True):
    """What one step loads and does. A model or project may be a selector of an input."""

    name: str
    block_type: str
    models: tuple[str, ...]
    projects: tuple[str, ...]
    operations: frozenset[str]


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What a workflow loads and does."""

    steps: tuple[StepWork, ...]


def parse_workload(body: bytes, specification: Specification) -> Workload:
    """Read the server's answer about this text. Raises `Refusal(UNKNOWN_WORKLOAD)`."""
    try:
        answer = _answers.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unknown("The inference server describes it in a way that is not known here.") from error
    described = [step.node_id for step in answer.steps]
    nodes = [node.id for node in answer.nodes if node.kind == "step"]
    own = {f"$steps.{name}" for name in specification.steps}
    if len(set(described)) != len(described) or set(described) != set(nodes) or not own <= set(described):
        raise _unknown("The inference server does not describe all of its steps.")
    if sum(len(step.resources.items) for step in answer.steps) > MAX_RESOURCES:
        raise _unknown("The workflow uses too many models.")
    return Workload(steps=tuple(_step(one) for one in answer.steps))


def _step(step: _Step) -> StepWork:
    name = step.node_id.removeprefix("$steps.")
    operations = frozenset(step.operations.items)
    resources = [one.metadata for one in step.resources.items]
    if PYTHON not in operations:
        _verify_known(name, step, {value for one in resources for value in _names(one)})
    is_external = any(
        isinstance(one, _ThirdParty) or (isinstance(one, _Model) and one.execution_location == "remote")
        for one in resources
    )
    return StepWork(
        name=name,
        block_type=step.block_type,
        models=tuple(dict.fromkeys(one.model_id for one in resources if isinstance(one, _Model))),
        projects=tuple(dict.fromkeys(one.project_url for one in resources if isinstance(one, _Project))),
        operations=operations | {EXTERNAL} if is_external else operations,
    )


def _verify_known(name: str, step: _Step, named: set[str]) -> None:
    """Refuse a step of which something is unknown that the request does not say either."""
    if not step.operations.complete or step.operations.unknown_reasons:
        raise _unknown(f"What step {name} does cannot be known before it runs.")
    causes = step.resources.unknown_reasons
    other = [one for one in causes if not _is_about_input(one, named)]
    if other or (not causes and not step.resources.complete):
        raise _unknown(f"What step {name} loads cannot be known before it runs{_field(other)}.")


def _names(resource: _Model | _Project | _ThirdParty) -> Sequence[str]:
    if isinstance(resource, _Project):
        return (resource.project_url,)
    if isinstance(resource, _ThirdParty):
        return resource.provider, resource.model_id
    return (resource.model_id,)


def _is_about_input(problem: _Problem, named: set[str]) -> bool:
    """Whether all that is unknown is the value of an input, in a place that we read."""
    selector = problem.details.get("selector")
    return (
        problem.code == "unresolved_selector"
        and isinstance(selector, str)
        and selector.startswith(INPUTS)
        and selector in named
    )


def _field(problems: Sequence[_Problem]) -> str:
    """What of the step is unknown, where the server says so in plain words."""
    details = problems[0].details if problems else {}
    field, selector = details.get("field"), details.get("selector")
    if not isinstance(field, str) or not isinstance(selector, str):
        return ""
    return f": {field} is {selector}"


def _unknown(client_detail: str) -> Refusal:
    return refused(Reason.UNKNOWN_WORKLOAD, client_detail)
