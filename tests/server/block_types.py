"""Every block of the server's workflows, as a specification that runs it. Runs in `.venv-server`.

Prints a list of JSON: the type of each block, a specification with it as a step, and what the block makes of
a value that an input gives for its model: the id that its own resolver returns. Required fields are filled by
what their names and examples say; a block that cannot be filled so has a specification that does not compile.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "engine"))

from client import prepare

IMAGE = "$inputs.image"
VALUE = "$inputs.value"
KNOWN = {
    "image": IMAGE,
    "images": IMAGE,
    "reference_image": IMAGE,
    "predictions": "$steps.detect.predictions",
    "detections": "$steps.detect.predictions",
    "object_detection_predictions": "$steps.detect.predictions",
    "classes": ["car"],
    "prompt": "a car",
    "url": "http://127.0.0.1:9/",
    "api_key": "no-key",
    "text": "hello",
    "data": "hello",
}
MODELS = {
    "roboflow_core/roboflow_object_detection_model": "acme/2",
    "roboflow_core/roboflow_classification_model": "acme/1",
}
DETECT = {
    "type": "roboflow_core/roboflow_object_detection_model@v2",
    "name": "detect",
    "images": IMAGE,
    "model_id": "acme/2",
}


def of_block(block):
    manifest = block.manifest_class
    schema = manifest.model_json_schema()
    block_type = schema["properties"]["type"]
    block_type = block_type.get("const") or block_type["enum"][0]
    step = {"type": block_type, "name": "tried"}
    for name in schema.get("required", ()):
        if name in {"type", "name"}:
            continue
        step[name] = filled(name, schema["properties"][name], block_type)
    steps = [step] if "$steps.detect" not in json.dumps(step) else [DETECT, step]
    specification = {
        "version": "1.0",
        "inputs": [
            {"type": "WorkflowImage", "name": "image"},
            {"type": "WorkflowParameter", "name": "value", "default_value": "hello"},
        ],
        "steps": steps,
        "outputs": [{"type": "JsonField", "name": "out", "selector": "$steps.tried.*"}],
    }
    return {"type": block_type, "specification": specification, "resolved": resolved(manifest, schema)}


def filled(name, described, block_type):
    if name == "model_id":
        return MODELS.get(block_type.partition("@")[0], "acme/1")
    if name in KNOWN:
        return KNOWN[name]
    if "default" in described:
        return described["default"]
    examples = [one for one in described.get("examples", ()) if "$steps" not in json.dumps(one)]
    return examples[0] if examples else "$steps.detect.predictions"


def resolved(manifest, schema):
    """What becomes of a model that an input names, by the block's own resolver: None without such a field."""
    found = set()
    for name in schema["properties"]:
        if name in {"type", "name"}:
            continue
        values = {
            other: field.get_default(call_default_factory=True)
            for other, field in manifest.model_fields.items()
        }
        values |= {"name": "tried", name: VALUE}
        try:
            resources = manifest.model_construct(**values).discover_dependent_resources() or []
        except Exception:  # noqa: BLE001 -- a manifest without its other fields
            continue
        for resource in getattr(resources, "items", resources) or ():
            metadata = resource.metadata
            if getattr(metadata, "type", "") != "roboflow_platform_model_v1" or metadata.model_id != VALUE:
                continue
            resolver = metadata.model_id_resolver
            try:
                found.add("V" if resolver is None else resolver("V"))
            except Exception:  # noqa: BLE001 -- it knows a few values only
                found.add(None)
    return sorted(found, key=str)


def main():
    operators = prepare()
    from roboflow_workflows.execution_engine.introspection.blocks_loader import (  # noqa: PLC0415
        load_workflow_blocks,
    )

    print(json.dumps([of_block(block) for block in load_workflow_blocks()], default=str))
    del operators


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # noqa: TID251 -- a process of the tests
    main()
