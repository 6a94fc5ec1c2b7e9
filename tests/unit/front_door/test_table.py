"""The packaged table parses, and a document that is wrong stops the start."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.front_door.table import SERVER_VERSIONS, load_table, parse_served_id, parse_table
from gateway.front_door.values import Answering, Existence
from gateway.model.errors import BadNameError, Misconfigured

DOCUMENT = (Path(__file__).parents[3] / "policies" / "servers" / "inference-1.8.3.toml").read_text()

OPEN_WITH_A_FLAG = {"/owlv2/infer", "/sam3_3d/infer"}
OPEN = {
    *("/info", "/readiness", "/healthz", "/model/registry", "/model/add"),
    *(f"/infer/{task}" for task in ("object_detection", "instance_segmentation", "semantic_segmentation")),
    *("/infer/classification", "/infer/embeddings", "/infer/keypoints_detection", "/infer/lmm"),
    *("/infer/lmm/{model_id:path}", "/infer/depth-estimation", "/infer/depth-estimation/{model_id:path}"),
    *("/infer/action_recognition", "/clip/embed_image", "/clip/embed_text", "/clip/compare"),
    *(f"/perception_encoder/{last}" for last in ("embed_image", "embed_text", "compare")),
    *(
        "/grounding_dino/infer",
        "/yolo_world/infer",
        "/doctr/ocr",
        "/easy_ocr/ocr",
        "/ocr/trocr",
        "/ocr/pp-ocr",
    ),
    *("/sam/embed_image", "/sam/segment_image", "/sam2/embed_image", "/sam2/segment_image"),
    *("/sam3/embed_image", "/sam3/concept_segment", "/sam3/visual_segment", *OPEN_WITH_A_FLAG),
    *("/{dataset_id}/{version_id:str}", "/start/{dataset_id}/{version_id}"),
}


def changed(old, new):
    assert old in DOCUMENT
    return DOCUMENT.replace(old, new, 1).encode()


@pytest.mark.parametrize("version", SERVER_VERSIONS)
def test_each_version_has_its_table(version):
    assert load_table(version).version == version


def test_another_version_has_none():
    with pytest.raises(Misconfigured):
        load_table("1.8.4")


WORKFLOWS = {
    *("/workflows/run", "/infer/workflows", "/workflows/validate"),
    *("/workflows/describe_interface", "/workflows/describe_workload"),
    *("/{workspace_name}/workflows/{workflow_id}", "/infer/workflows/{workspace_name}/{workflow_id}"),
    "/{workspace_name}/workflows/{workflow_id}/describe_interface",
    "/{workspace_name}/workflows/{workflow_id}/describe_workload",
}
BLOCKS = {
    *("/workflows/blocks/describe", "/workflows/blocks/dynamic_outputs"),
    *("/workflows/definition/schema", "/workflows/execution_engine/versions"),
}


def test_exactly_these_routes_are_open():
    routes = load_table("1.8.3").routes
    opened = {route.path for route in routes if route.answering is not Answering.CLOSED}
    assert opened == OPEN | WORKFLOWS | BLOCKS
    assert {route.path for route in routes if route.answering is Answering.WORKFLOW} == WORKFLOWS
    assert {route.path for route in routes if route.answering is Answering.BLOCKS} == BLOCKS
    not_always = {route.path for route in routes if route.exists is not Existence.ALWAYS}
    assert OPEN & not_always == OPEN_WITH_A_FLAG


def test_all_that_matches_nothing_is_closed_last():
    last = load_table("1.8.3").routes[-1]
    assert (last.method, last.path, last.answering) == ("*", "/{path:path}", Answering.CLOSED)


def test_sam_keeps_images_under_names_and_nothing_else_does():
    routes = load_table("1.8.3").routes
    assert {route.path.split("/")[1] for route in routes if route.image_ids} == {"sam", "sam2", "sam3"}
    assert len([route for route in routes if route.image_ids]) == 7


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('version = "1.8.3"', 'version = "1.8.2"'),
        ('version = "1.8.3"', ""),
        ('version = "1.8.3"', 'version = "1.8.3"\nsurprise = 1'),
        ('body = "json"', 'body = "xml"'),
        ('model = "member"', 'model = "somewhere"'),
        ('model = "member"\n', ""),
        ('images = ["image"]', 'images = ["picture"]'),
        ('images = ["image"]', 'surprise = ["image"]'),
        ('family = "clip"', 'family = "klip"'),
        ('family = "clip"\n', ""),
        ('id = "sam3/sam3_interactive"\n', ""),
        ('id = "sam3/sam3_interactive"', 'id = "a/b/c"'),
        ('answering = "closed"', 'answering = "open"'),
        ('answering = "closed"', 'answering = "pass"'),
        ('answering = "closed"', 'answering = "closed"\nbody = "json"'),
        ('path = "/docs"', 'path = "docs"'),
        ('path = "/docs"', 'path = "/redoc"'),
        ('path = "/infer/lmm/{model_id:path}"', 'path = "/infer/lmm/x"'),
        ('method = "GET"', 'method = "get"'),
        ('service_secret = "refuse"', 'service_secret = "maybe"'),
        ('id = "pass"', 'api_key = "pass"'),
        ('custom_python = "custom-python"', 'custom_python = "infer"'),
        ('custom_python = "custom-python"', "custom_python = 1"),
        ('id = "pass"', 'model_id = "pass"'),
        ('  "clip_version_id",\n', ""),
        ('  "text_detection",\n', ""),
        ('"resnet18" = "classifiers/1"', '"resnet/18" = "classifiers/1"'),
        ('"resnet18" = "classifiers/1"', '"resnet18" = "resnet34"'),
        ('"resnet18" = "classifiers/1"', '"resnet18" = "a,b"'),
        ('default = "ViT-B-16"', 'default = "a/b"'),
        ('query = ["confidence"', 'query = ["service_secret"'),
        ('query = ["confidence"', 'query = ["api_key"'),
        ('query = ["confidence"', 'query = ["image"'),
        ('body = "stream"', 'body = "none"'),
    ],
)
def test_a_table_that_is_wrong_is_refused(old, new):
    with pytest.raises(Misconfigured):
        parse_table(changed(old, new), "table.toml", "1.8.3")


def test_the_error_names_the_file_and_the_row():
    with pytest.raises(Misconfigured, match=re.escape("table.toml: POST /clip/embed_image")):
        parse_table(changed('family = "clip"\n', ""), "table.toml", "1.8.3")


@pytest.mark.parametrize(
    ("requested", "models"),
    [
        ("acme/1", ("acme/1",)),
        ("yolov8n-640", ("yolov8n-640", "coco/3")),
        ("pp_ocr", ("pp_ocr", "pp-ocrv6-det/small", "pp-ocrv6-rec/small")),
        ("pp_ocr/tiny", ("pp_ocr/tiny", "pp-ocrv6-det/tiny", "pp-ocrv6-rec/tiny")),
        ("pp_ocr/none-medium", ("pp_ocr/none-medium", "pp-ocrv6-rec/medium")),
        ("pp_ocr/none-none", ("pp_ocr/none-none",)),
        ("pp_ocr/huge", ("pp_ocr/huge",)),
        ("perception_encoder/x", ("perception_encoder/x", "perception-encoder/x")),
    ],
)
def test_all_that_an_id_loads_is_named(requested, models):
    assert load_table("1.8.3").models_of(requested) == models


@pytest.mark.parametrize(
    "text", ["acme/1", "sam2/hiera_tiny", "ViT-L-14-336px", "a/0", "a/-1", "a/1-2", "a/1__0", "-a/_b"]
)
def test_ids_that_are_served(text):
    assert parse_served_id(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "a/b/c",
            "a/..",
            "../a",
            "./a",
            "a b",
            "a,b",
            "a:b",
            "a\n",
            "caf\xe9/1",
        ),
        *("a/01", "a/1_0", "a/-0", "a/00", "01", "a" * 256, "a/b?c", "a%2Fb", "a\\b", "a/*"),
        *("a/\N{ARABIC-INDIC DIGIT ONE}", "a/\ud800"),
    ],
)
def test_ids_that_are_not(text):
    with pytest.raises(BadNameError):
        parse_served_id(text)
