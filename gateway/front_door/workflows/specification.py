"""A workflow's specification, as the one text that is described, remembered and run.

It is written anew from the strictly parsed document, so that no parser finds another workflow in it. What the
server's description is silent about is read here, from the document itself, at any depth:

- custom Python: the server executes every definition when it compiles a workflow, used by a step or not;
- `active_learning_target_dataset`: images are uploaded there;
- inner workflows: one that is saved elsewhere is another text at another moment, and one that is dispatched
  runs on another server, past the gateway.

The bounds keep one text from costing the server much: it compiles what is asked about.

Non-goals: what steps load and do (`workload.py`), and fetching what is saved elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.front_door.strict_json import write_json
from gateway.model.errors import Reason, Refusal
from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TEXT_BYTES = 256 << 10
"""Of a specification: the largest that the server's documentation shows have some 20 kB."""

MAX_STEPS = 256
"""Of a workflow, with those of its inner workflows: the time for compiling one grows with their pairs."""

MAX_INNER_DEPTH = 4
"""Of inner workflows, as in the server's own default."""

MAX_INNER_WORKFLOWS = 32
"""In all, as in the server's own default."""

MAX_SELECTOR_CHARACTERS = 256
"""Of a selector, and of the name of a step, which stands in selectors."""

MAX_INLINED_BYTES = 16 << 20
"""What inner workflows may come to when the server writes their values in place of selectors. It does so in
all texts, so 250 kB could become gigabytes, and more with each depth. So no text has two selectors there, and
no value makes one into two."""

INNER_WORKFLOW = "roboflow_core/inner_workflow@v1"
EMBEDDED = "embedded"
INPUTS = "$inputs."
STEPS = "$steps."
REFERENCE = ("workflow_workspace_id", "workflow_id", "workflow_version_id")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""Of an input. Of one with a dot, the server takes what follows the last dot for its name when it runs."""

_IMAGES = frozenset({"WorkflowImage", "InferenceImage"})
_PARAMETERS = frozenset({"WorkflowParameter", "InferenceParameter"})
_TYPES = frozenset({*_IMAGES, *_PARAMETERS, "WorkflowBatchInput", "WorkflowVideoMetadata"})


class DeclaredInput(msgspec.Struct, frozen=True, kw_only=True):
    """An input of a workflow. Only parameters have defaults, and only they can name a model."""

    is_image: bool
    is_parameter: bool
    default: Any = None


class Specification(msgspec.Struct, frozen=True, kw_only=True):
    """A specification that refers to nothing outside itself. A tenant's own document: never printed."""

    text: bytes
    digest: bytes  # SHA-256 of the text
    inputs: dict[str, DeclaredInput]
    steps: frozenset[str]  # the names of its own steps but for inner workflows
    has_python: bool
    datasets: tuple[str, ...]  # where steps upload images to: names, or selectors of inputs

    def __repr__(self) -> str:
        return shown(self, hidden=("text", "inputs", "datasets"))


def refused(reason: Reason, client_detail: str) -> Refusal:
    """A refusal that tells the tenant what about its own workflow is the cause."""
    return Refusal(reason, client_detail=client_detail)


def read_specification(document: Any) -> Specification:
    """Read a specification. Raises `Refusal`: MALFORMED_WORKFLOW, UNKNOWN_WORKLOAD, SAVED_WORKFLOW."""
    if not isinstance(document, dict):
        raise refused(Reason.MALFORMED_WORKFLOW, "The specification is no JSON object.")
    walk = _Walk()
    walk.workflow(document, depth=0)
    walk.verify_inlining()
    text = write_json(document)
    if len(text) > MAX_TEXT_BYTES:
        raise _too_large()
    return Specification(
        text=text,
        digest=hashlib.sha256(text).digest(),
        inputs=_read_inputs(document),
        steps=frozenset(
            str(step["name"]) for step in steps_of(document) if step.get("type") != INNER_WORKFLOW
        ),
        has_python=walk.has_python,
        datasets=tuple(walk.datasets),
    )


def steps_of(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of one workflow. Raises `Refusal` where they are no list of objects with names.

    A type with a `$` could become another one: the server writes outputs of inner workflows in place of
    selectors in all texts of the outer one.
    """
    steps = workflow.get("steps")
    if not isinstance(steps, list) or not all(
        isinstance(step, dict)
        and isinstance(step.get("name"), str)
        and len(step["name"]) <= MAX_SELECTOR_CHARACTERS
        and isinstance(step.get("type"), str)
        and "$" not in step["type"]
        for step in steps
    ):
        raise refused(
            Reason.MALFORMED_WORKFLOW, "The steps are no list of objects, each with a name and a type."
        )
    return steps


class _Walk:
    """What is found in a specification at any depth."""

    def __init__(self) -> None:
        self.has_python = False
        self.datasets: list[str] = []
        self._steps = 0
        self._inner_workflows = 0
        self._characters = 0  # at least as many bytes of the text
        self._selectors = 0  # anywhere in texts
        self._most_selectors = 0  # in one text
        self._written_bytes = 0  # in place of selectors, for one inner workflow

    def workflow(self, document: dict[str, Any], *, depth: int) -> None:
        """Read one workflow, and those within it."""
        self._verify_values(document, depth)
        for step in steps_of(document):
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise refused(Reason.MALFORMED_WORKFLOW, f"The workflow has more than {MAX_STEPS} steps.")
            if step["type"] != INNER_WORKFLOW:
                continue
            verify_embedded(step)
            self._inner_workflows += 1
            inner = step.get("workflow_definition")
            if depth >= MAX_INNER_DEPTH or self._inner_workflows > MAX_INNER_WORKFLOWS:
                raise refused(Reason.MALFORMED_WORKFLOW, "There are too many inner workflows, or too deep.")
            is_saved = any(step.get(name) is not None for name in REFERENCE)
            if is_saved or not isinstance(inner, dict) or not inner:
                client_detail = f"Step {step['name']} names a workflow that is saved elsewhere."
                raise refused(Reason.SAVED_WORKFLOW, client_detail)
            self.workflow(inner, depth=depth + 1)
            self._note_written(step, inner)

    def verify_inlining(self) -> None:
        """Refuse inner workflows that the server would make much larger than they are."""
        if not self._inner_workflows:
            return
        if self._most_selectors > 1:
            raise refused(Reason.MALFORMED_WORKFLOW, "A text beside inner workflows has several selectors.")
        if self._selectors * self._written_bytes > MAX_INLINED_BYTES:
            raise refused(Reason.MALFORMED_WORKFLOW, "An inner workflow has too large values.")

    def _note_written(self, step: dict[str, Any], inner: dict[str, Any]) -> None:
        """What the server writes in place of selectors: bindings, default values, outputs."""
        bindings, outputs = step.get("parameter_bindings") or {}, inner.get("outputs") or []
        if not isinstance(bindings, dict) or not isinstance(outputs, list):
            raise refused(Reason.MALFORMED_WORKFLOW, "Bindings are no object, or outputs no list.")
        defaults = {f"{INPUTS}{name}": one.default for name, one in _read_inputs(inner).items()}
        selectors = [str(one.get("selector")) for one in outputs if isinstance(one, dict)]
        texts = [*map(str, bindings.values()), *selectors]
        texts += [str(defaults[one]) for one in selectors if one in defaults]
        values = write_json([one for one in defaults.values() if isinstance(one, (dict, list))])
        if any(one.rfind("$") > 0 for one in texts) or _count_selectors(values.decode()):
            raise refused(Reason.MALFORMED_WORKFLOW, "A value of an inner workflow has a selector within.")
        self._written_bytes = max(self._written_bytes, len(values) + sum(map(len, texts)))

    def _verify_values(self, document: dict[str, Any], depth: int) -> None:
        """Read everything of one workflow but its inner ones, whatever block it may belong to."""
        for name, value in _members(document):
            self._characters += len(name) + (len(value) if isinstance(value, str) else 1)
            if self._characters > MAX_TEXT_BYTES:  # before any work that grows with the whole of it
                raise _too_large()
            if name == "dynamic_blocks_definitions" and value:
                self.has_python = True
            elif name == "active_learning_target_dataset" and value is not None:
                self._dataset(value, depth)
            elif name == "execution_mode" and value is not None and value != EMBEDDED:
                raise refused(
                    Reason.UNKNOWN_WORKLOAD, "A step runs on another server, where nothing is authorised."
                )
            if not isinstance(value, str):
                continue
            selectors = _count_selectors(value)
            self._selectors += selectors
            self._most_selectors = max(self._most_selectors, selectors)
            if value.startswith("$") and len(value) > MAX_SELECTOR_CHARACTERS:
                client_detail = f"A selector has more than {MAX_SELECTOR_CHARACTERS} characters."
                raise refused(Reason.MALFORMED_WORKFLOW, client_detail)

    def _dataset(self, value: Any, depth: int) -> None:
        """A dataset: a name, or an input of the whole workflow. An inner one's inputs are others."""
        if not isinstance(value, str) or (value.startswith("$") and depth):
            client_detail = "Where active learning uploads images cannot be known before it runs."
            raise refused(Reason.UNKNOWN_WORKLOAD, client_detail)
        self.datasets.append(value)


def _count_selectors(text: str) -> int:
    """How many there are anywhere in it."""
    return text.count(INPUTS) + text.count(STEPS)


def _too_large() -> Refusal:
    return refused(Reason.MALFORMED_WORKFLOW, f"The specification has more than {MAX_TEXT_BYTES} bytes.")


def verify_embedded(step: dict[str, Any]) -> None:
    """Refuse an inner workflow that another server would run. Raises `Refusal(UNKNOWN_WORKLOAD)`."""
    if step.get("execution_mode", EMBEDDED) != EMBEDDED or step.get("remote_target") is not None:
        client_detail = f"Step {step['name']} runs on another server, where nothing is authorised."
        raise refused(Reason.UNKNOWN_WORKLOAD, client_detail)


def _members(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """All members of all objects of a workflow, and texts in lists, but for those of inner workflows."""
    waiting: list[Any] = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for name, value in node.items():
                yield name, value
                is_inner = name == "workflow_definition" and node.get("type") == INNER_WORKFLOW
                if isinstance(value, (dict, list)) and not is_inner:
                    waiting.append(value)
        else:
            texts_and_containers = [value for value in node if isinstance(value, (str, dict, list))]
            for value in texts_and_containers:
                yield "", value
                if not isinstance(value, str):
                    waiting.append(value)


def _read_inputs(document: dict[str, Any]) -> dict[str, DeclaredInput]:
    """The inputs by name, each once: of two, the server and we could take different ones."""
    declared = document.get("inputs", [])
    if not isinstance(declared, list):
        raise refused(Reason.MALFORMED_WORKFLOW, "The inputs are no list.")
    inputs: dict[str, DeclaredInput] = {}
    for one in declared:
        kind, name = (one.get("type"), one.get("name")) if isinstance(one, dict) else (None, None)
        if (
            not isinstance(kind, str)
            or kind not in _TYPES
            or not isinstance(name, str)
            or not _NAME.fullmatch(name)
            or name in inputs
        ):
            raise refused(
                Reason.MALFORMED_WORKFLOW, "An input has no name, or a name or a type that is refused."
            )
        inputs[name] = DeclaredInput(
            is_image=kind in _IMAGES or (kind not in _PARAMETERS and "image" in _kinds(one)),
            is_parameter=kind in _PARAMETERS,
            default=one.get("default_value"),
        )
    return inputs


def _kinds(declared: dict[str, Any]) -> frozenset[str]:
    kinds = declared.get("kind", [])
    if not isinstance(kinds, list):
        raise refused(Reason.MALFORMED_WORKFLOW, "The kinds of an input are no list.")
    names = frozenset(str(one.get("name")) if isinstance(one, dict) else str(one) for one in kinds)
    if any("$" in name for name in names):  # as for the types of steps
        raise refused(Reason.MALFORMED_WORKFLOW, "A kind of an input is a selector.")
    return names
