"""What has to be permitted before a workflow runs: models, projects, and what it does besides.

A value that comes from an input is the request's own, and else the default that the specification gives. It
has to be one text: the server would load each model of a list. What the server makes of the text differs by
block (`clip` loads `clip/<version>`) and is in the table; of other blocks, no such value passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.front_door.table import parse_served_id
from gateway.front_door.workflows.specification import INPUTS, refused
from gateway.front_door.workflows.workload import PYTHON
from gateway.model.access import Action
from gateway.model.errors import BadNameError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.front_door.table import ServerTable
    from gateway.front_door.workflows.specification import Specification
    from gateway.front_door.workflows.workload import StepWork, Workload
    from gateway.model.names import ModelId

MAX_NEEDED = 32
"""Models and projects of one workflow, as of any request."""


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be permitted. `steps` are the names of those that do something."""

    models: tuple[ModelId, ...]  # with those behind aliases, and those that they bring by the table
    projects: tuple[ModelId, ...]
    steps: dict[Action, tuple[str, ...]]
    stateful_models: tuple[ModelId, ...] = ()
    """Those that may answer with what the last request told them to look for, whosever it was."""

    @property
    def actions(self) -> tuple[Action, ...]:
        """What it does beside running models."""
        return tuple(self.steps)


def find_needs(
    workload: Workload, specification: Specification, inputs: Mapping[str, Any], table: ServerTable
) -> Needs:
    """What a run with these inputs needs. Raises `Refusal`: MALFORMED_WORKFLOW, UNKNOWN_WORKLOAD."""
    reader = _Reader(specification, inputs, table)
    models: dict[ModelId, None] = {}
    projects: dict[ModelId, None] = {}
    steps: dict[Action, dict[str, None]] = {}
    for step in workload.steps:
        for written in step.models:
            models.update(dict.fromkeys(table.models_of(reader.model(step, written))))
        for written in step.projects:
            projects[reader.name(f"Step {step.name}", written)] = None
        for operation in sorted(step.operations):
            action = reader.action(step, operation)
            if action is not None:
                steps.setdefault(action, {})[step.name] = None
    for written in specification.datasets:
        projects[reader.name("Active learning", written)] = None
    if specification.has_python:
        steps.setdefault(Action.CUSTOM_PYTHON, {}).setdefault("dynamic_blocks_definitions", None)
    if len(models) + len(projects) > MAX_NEEDED:
        client_detail = f"The workflow uses more than {MAX_NEEDED} models and projects."
        raise refused(Reason.MALFORMED_WORKFLOW, client_detail)
    return Needs(
        models=tuple(models),
        projects=tuple(projects),
        steps={action: tuple(names) for action, names in sorted(steps.items())},
        stateful_models=tuple(
            model for model in models if any(model.startswith(rule.prefix) for rule in table.stateful)
        ),
    )


class _Reader:
    def __init__(self, specification: Specification, inputs: Mapping[str, Any], table: ServerTable) -> None:
        self._specification, self._inputs, self._table = specification, inputs, table

    def model(self, step: StepWork, written: str) -> ModelId:
        """The id of a model that a step names, by itself or by an input."""
        if not written.startswith("$"):
            return self.name(f"Step {step.name}", written)
        form = self._table.workflows.selectors.get(step.block_type)
        if form is None:
            client_detail = f"Which model step {step.name} loads for {written} is not known here."
            raise refused(Reason.UNKNOWN_WORKLOAD, client_detail)
        return self._parsed(f"Step {step.name}", form.replace("{value}", self._value(written)))

    def name(self, who: str, written: str) -> ModelId:
        """A name as it is written, or the value of an input."""
        return self._parsed(who, self._value(written) if written.startswith("$") else written)

    def action(self, step: StepWork, operation: str) -> Action | None:
        """What has to be permitted for an operation; None for a harmless one."""
        if operation not in self._table.workflows.operations:
            client_detail = f"Step {step.name} does something that is not known here."
            raise refused(Reason.UNKNOWN_WORKLOAD, client_detail)
        action = self._table.workflows.operations[operation]
        return Action.CUSTOM_PYTHON if operation == PYTHON else (action and Action(action)) or None

    def _value(self, selector: str) -> str:
        """The value of an input that stands for a name."""
        name = selector.removeprefix(INPUTS)
        declared = self._specification.inputs.get(name)
        if declared is None or not declared.is_parameter or not selector.startswith(INPUTS):
            raise refused(Reason.UNKNOWN_WORKLOAD, f"What {selector} stands for is only known when it runs.")
        value = self._inputs.get(name, declared.default)
        if not isinstance(value, str) or value.startswith("$"):
            client_detail = f"The value of {selector} is not one text, and has no default that is one."
            raise refused(Reason.UNKNOWN_WORKLOAD, client_detail)
        return value

    def _parsed(self, who: str, text: str) -> ModelId:
        try:
            return parse_served_id(text)
        except BadNameError:
            client_detail = f"{who} names a model or project with an id that is refused on all routes."
            raise refused(Reason.MALFORMED_WORKFLOW, client_detail) from None
