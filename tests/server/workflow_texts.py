"""Specifications of workflows that the tests send."""

from __future__ import annotations

CLASSIFY_BLOCK = "roboflow_core/roboflow_classification_model@v2"
CLIP_BLOCK = "roboflow_core/clip@v1"
INNER_BLOCK = "roboflow_core/inner_workflow@v1"
IMAGE = {"type": "WorkflowImage", "name": "image"}


def workflow(*steps, inputs=(IMAGE,), outputs=(), **more):
    """A specification with these steps; each output is a selector."""
    return {
        "version": "1.0",
        "inputs": list(inputs),
        "steps": list(steps),
        "outputs": [
            {"type": "JsonField", "name": f"out{number}", "selector": selector}
            for number, selector in enumerate(outputs)
        ],
    } | more


def classify(model, name="classify", **more):
    """A step that runs a classification model."""
    return {"type": CLASSIFY_BLOCK, "name": name, "images": "$inputs.image", "model_id": model} | more


def classifying(model, **more):
    """A workflow that runs one classification model."""
    return workflow(classify(model), outputs=("$steps.classify.predictions",), **more)


def parameter(name, **more):
    """A parameter of a workflow."""
    return {"type": "WorkflowParameter", "name": name} | more


def inner(definition, name="nested", **more):
    """A step that runs another workflow."""
    return {
        "type": INNER_BLOCK,
        "name": name,
        "workflow_definition": definition,
        "parameter_bindings": {"image": "$inputs.image"},
    } | more


def python_block(code="def run(self):\n    return {'said': 'here'}\n", block_type="Said"):
    """A definition of a block of custom Python."""
    return {
        "type": "DynamicBlockDefinition",
        "manifest": {
            "type": "ManifestDescription",
            "block_type": block_type,
            "inputs": {},
            "outputs": {"said": {"type": "DynamicOutputDefinition", "kind": []}},
        },
        "code": {"type": "PythonCode", "run_function_code": code},
    }
