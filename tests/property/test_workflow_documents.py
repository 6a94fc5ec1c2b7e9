"""Laws of what is read about workflows: whatever comes in is read or refused, and never a defect of ours."""

from __future__ import annotations

import json
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from gateway.front_door.table import load_table
from gateway.front_door.workflows.asking import find_named
from gateway.front_door.workflows.inputs import read_inputs
from gateway.front_door.workflows.needs import find_needs
from gateway.front_door.workflows.running import read_order
from gateway.front_door.workflows.saved import names_saved
from gateway.front_door.workflows.specification import INNER_WORKFLOW, read_specification
from gateway.front_door.workflows.workload import StepWork, Workload, parse_workload
from gateway.model.errors import Refusal

TABLE = load_table("1.8.3")
NAMES = (
    *("steps", "inputs", "name", "type", "kind", "default_value", "workflow_definition", "execution_mode"),
    *("dynamic_blocks_definitions", "active_learning_target_dataset", "workflow_id", "remote_target"),
    *(
        "workflow_workspace_id",
        "value",
        "image",
        "excluded_fields",
        "disable_sinks",
        "is_preview",
        "model_id",
    ),
)
TEXTS = (
    *(INNER_WORKFLOW, "WorkflowImage", "WorkflowParameter", "WorkflowBatchInput", "image", "embedded"),
    *("$inputs.image", "http://a.example", "base64", "url", "acme/1", "local"),
)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
leaves |= st.sampled_from(TEXTS) | st.text(max_size=8)
documents = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=25,
)


declared = st.fixed_dictionaries(
    {"type": st.sampled_from(["WorkflowImage", "WorkflowBatchInput", "WorkflowParameter"])},
    optional={"kind": st.just(["image"]) | documents, "default_value": documents},
)
steps = st.fixed_dictionaries(
    {"type": st.sampled_from([INNER_WORKFLOW, "some/block@v1"]), "name": st.text(max_size=4)},
    optional={name: documents for name in NAMES if name not in {"type", "name"}},
)
specifications = st.builds(
    lambda inputs, found, more: more | {"inputs": inputs, "steps": found},
    st.dictionaries(st.sampled_from(["image", "value"]), declared, max_size=2).map(
        lambda named: [one | {"name": name} for name, one in named.items()]
    ),
    st.lists(steps, max_size=3),
    st.dictionaries(st.sampled_from(NAMES), documents, max_size=2),
)


@given(
    documents | specifications, documents | st.fixed_dictionaries({"image": documents, "value": documents})
)
def test_any_document_is_read_or_refused(document, given_inputs):
    for read in (read_specification, names_saved, find_named):
        with suppress(Refusal):
            read(document)
    if isinstance(document, dict):
        with suppress(Refusal):
            read_order(document)
    with suppress(Refusal):
        specification = read_specification(document)
        assert json.loads(specification.text) == document
        inputs, images = read_inputs(given_inputs, specification)
        assert set(inputs) <= set(specification.inputs)
        shown = [
            inputs[name] for name, one in specification.inputs.items() if one.is_image and name in inputs
        ]
        assert '"value": "http' not in json.dumps(shown)
        assert all(image.place is not None for image in images)


@given(st.binary(max_size=200) | documents.map(lambda document: json.dumps(document).encode()))
def test_any_answer_of_a_server_is_read_or_refused(body):
    with suppress(Refusal):
        parse_workload(body, read_specification({"steps": []}))


@given(st.text(max_size=12) | st.sampled_from(TEXTS), documents)
def test_whatever_a_model_is_called_it_has_an_id_of_ours_or_is_refused(written, value):
    specification = read_specification(
        {"inputs": [{"type": "WorkflowParameter", "name": "image"}], "steps": []}
    )
    step = StepWork(
        name="one",
        block_type="roboflow_core/clip@v1",
        models=(written,),
        projects=(),
        operations=frozenset(),
    )
    with suppress(Refusal):
        needs = find_needs(Workload(steps=(step,)), specification, {"image": value}, TABLE)
        assert needs.models
        if written.startswith("$"):
            assert needs.models[0] == f"clip/{value}"
