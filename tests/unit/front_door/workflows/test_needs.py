"""What has to be permitted for a workflow, by its inputs and the table."""

from __future__ import annotations

import pytest

from gateway.front_door.table import load_table
from gateway.front_door.workflows.needs import MAX_NEEDED, find_needs
from gateway.front_door.workflows.specification import read_specification
from gateway.front_door.workflows.workload import StepWork, Workload
from gateway.model.access import ALLOWABLE, Action
from gateway.model.errors import Reason, Refusal

TABLE = load_table("1.8.3")
CLASSIFY, CLIP = "roboflow_core/roboflow_classification_model@v2", "roboflow_core/clip@v1"


def work(name="one", block_type=CLASSIFY, models=(), projects=(), operations=("model_inference",)):
    return StepWork(
        name=name,
        block_type=block_type,
        models=models,
        projects=projects,
        operations=frozenset(operations),
    )


def specification(*inputs, **more):
    return read_specification({"inputs": list(inputs), "steps": []} | more)


def parameter(name="model", **more):
    return {"type": "WorkflowParameter", "name": name} | more


def needs(*steps, spec=None, **inputs):
    return find_needs(Workload(steps=steps), spec or specification(parameter()), inputs, TABLE)


def reason(*steps, spec=None, **inputs):
    with pytest.raises(Refusal) as caught:
        needs(*steps, spec=spec, **inputs)
    assert caught.value.client_detail
    return caught.value.reason


def test_models_come_with_those_behind_them():
    assert needs(work(models=("acme/1", "resnet18"))).models == ("acme/1", "resnet18", "classifiers/1")
    assert needs(work(models=("pp_ocr/small-small",))).models[1:] == (
        "pp-ocrv6-det/small",
        "pp-ocrv6-rec/small",
    )


def test_models_that_keep_what_they_were_told_are_named():
    assert needs(work(models=("acme/1",))).stateful_models == ()
    found = needs(work(models=("acme/1", "$inputs.model")), model="yolo_world/l")
    assert found.stateful_models == ("yolo_world/l",)


def test_a_parameter_wins_over_its_default():
    spec = specification(parameter(default_value="acme/1"))
    assert needs(work(models=("$inputs.model",)), spec=spec).models == ("acme/1",)
    assert needs(work(models=("$inputs.model",)), spec=spec, model="acme/2").models == ("acme/2",)


@pytest.mark.parametrize("value", [None, 7, True, ["acme/1"], {"a": 1}, "$inputs.other", "$steps.a.b"])
def test_a_value_that_is_not_one_text_is_refused(value):
    spec = specification(parameter(default_value="acme/1"))
    assert reason(work(models=("$inputs.model",)), spec=spec, model=value) is Reason.UNKNOWN_WORKLOAD


@pytest.mark.parametrize("selector", ["$inputs.none", "$inputs", "$steps.one.model", "$inputs.image", "$"])
def test_a_selector_of_no_parameter_is_refused(selector):
    spec = specification(parameter(), {"type": "WorkflowImage", "name": "image"})
    assert reason(work(models=(selector,)), spec=spec, image="acme/1") is Reason.UNKNOWN_WORKLOAD


def test_a_version_is_one_of_its_family():
    assert needs(work(block_type=CLIP, models=("$inputs.model",)), model="ViT-B-16").models == (
        "clip/ViT-B-16",
    )
    assert reason(work(block_type=CLIP, models=("$inputs.model",)), model="a/b") is Reason.MALFORMED_WORKFLOW


def test_a_block_of_which_it_is_not_known_what_it_makes_of_a_value_is_refused():
    step = work(block_type="roboflow_core/qwen_vlm@v3", models=("$inputs.model",))
    assert reason(step, model="acme/1") is Reason.UNKNOWN_WORKLOAD


@pytest.mark.parametrize("model", ["a/b/c", "", " acme/1", "acme/1,globex/1", "https://a", "../x", "acme//1"])
def test_an_id_that_is_refused_elsewhere_is_refused_here(model):
    assert reason(work(models=(model,))) is Reason.MALFORMED_WORKFLOW


@pytest.mark.parametrize("action", ALLOWABLE)
def test_each_operation_needs_its_action(action):
    operation = action.replace("-", "_")
    found = needs(work(operations=(operation,)), work("two", operations=(operation, "visualization")))
    assert found.steps == {action: ("one", "two")}


def test_an_operation_that_is_not_known_is_refused():
    assert reason(work(operations=("model_inference", "anything_new"))) is Reason.UNKNOWN_WORKLOAD


def test_python_that_no_step_uses_needs_its_action():
    found = needs(work(), spec=specification(dynamic_blocks_definitions=[{}, 1]))
    assert found.actions == (Action.CUSTOM_PYTHON,)


def test_projects_and_datasets():
    spec = read_specification(
        {
            "inputs": [parameter("set")],
            "steps": [{"type": "x", "name": "x", "active_learning_target_dataset": "$inputs.set"}],
        }
    )
    assert needs(work(projects=("a-set",)), spec=spec, set="b-set").projects == ("a-set", "b-set")
    assert reason(work(), spec=spec) is Reason.UNKNOWN_WORKLOAD


def test_no_more_than_can_be_decided_at_once():
    assert needs(work(models=tuple(f"acme/{n}" for n in range(MAX_NEEDED))))
    assert reason(work(models=tuple(f"acme/{n}" for n in range(MAX_NEEDED + 1)))) is Reason.MALFORMED_WORKFLOW
