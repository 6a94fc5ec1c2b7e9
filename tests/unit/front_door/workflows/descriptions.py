"""Answers to `describe_workload`, as the inference server 1.8.3 gives them."""

from __future__ import annotations

import json


def discovery(*items, problems=(), complete=None):
    return {
        "type": "discovery_v1",
        "items": list(items),
        "complete": not problems if complete is None else complete,
        "unknown_reasons": list(problems),
    }


def resource(kind, **metadata):
    document = {"type": f"{kind}_v1", **metadata}
    return {"type": "dependent_resource_v1", "resource_type": kind, "metadata": document}


def model(model_id, location="environment_defined"):
    return resource(
        "roboflow_platform_model",
        model_id=model_id,
        required_action="execution",
        execution_location=location,
    )


def project(name):
    return resource("roboflow_platform_project", project_url=name)


def third_party(provider="openai", model_id="gpt"):
    return resource("third_party_model", provider=provider, model_id=model_id)


def unresolved(selector, field="model_id", code="unresolved_selector"):
    details = {"node_id": "$steps.one", "declaration": "resources", "field": field, "selector": selector}
    return {"type": "discovery_problem_v1", "code": code, "description": "words", "details": details}


def step(name="one", block_type="some/block@v1", resources=None, operations=None, **more):
    return {
        "type": "step_metadata_v1",
        "node_id": f"$steps.{name}",
        "block_type": block_type,
        "input_dimensionality": 1,
        "output_dimensionality": 1,
        "accepts_batch_input": True,
        "resources": resources or discovery(),
        "restrictions": discovery(),
        "operations": operations or discovery("model_inference"),
    } | more


def answer(*steps, nodes=None, **more):
    if nodes is None:
        nodes = [one["node_id"] for one in steps]
    document = {
        "type": "workflow_introspection_v1",
        "execution_engine_version": "1.9.0",
        "nodes": [{"type": "graph_node_v1", "id": one, "kind": "step"} for one in nodes],
        "edges": [],
        "steps": list(steps),
        "summary": {"type": "workflow_summary_v1"},
    }
    return json.dumps(document | more).encode()
