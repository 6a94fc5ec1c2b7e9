"""Random requests to the inference server: routes, keys and ids in all places, duplicates, encodings.

Most begin as what a client would send, and are then changed in a few places; else nearly all would be refused
for the first thing that is wrong with them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from http_client import image
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from tenants_models import ALIAS, BOXES, CARS, CHILD, GLOBEX_BOXES, GLOBEX_VANS, SHARED, STATIC_ALIAS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GOOD_IDS = (
    CARS,
    BOXES,
    CHILD,
    GLOBEX_VANS,
    GLOBEX_BOXES,
    SHARED,
    STATIC_ALIAS,
    ALIAS,
    "clip/ViT-B-16",
    "pp_ocr",
)
BAD_IDS = (
    *("clip/RN50", "grounding_dino/default", "sam/vit_h", "acme/99", "acme/1,globex/1", "acme/1/", "acme/01"),
    *("Acme/1", " acme/1", "acme/..", "acme%2F1", "infer/lmm", "acme/1:capabilities=image_embeddings", ""),
)
VERSIONS = ("ViT-B-16", "ViT-B-16", "default", "l", "RN50", "../../acme", "ViT-B-16,x", "", None, 1)
STAGES = ("small", "none", "tiny", "x", None)

BY_MEMBER = (
    "/infer/classification",
    "/infer/object_detection",
    "/infer/lmm",
    "/infer/embeddings",
    "/model/add",
)
BY_MEMBER_TOO = (  # the same, on routes whose models are not here: they fail once they have named one
    *("/infer/instance_segmentation", "/infer/semantic_segmentation", "/infer/keypoints_detection"),
    *("/infer/depth-estimation", "/infer/action_recognition", "/sam3/concept_segment", "/sam3_3d/infer"),
)
BY_PATH = ("/infer/lmm/{}", "/infer/depth-estimation/{}", "/{}", "/start/{}")
BY_VERSION = {
    "/clip/embed_text": "clip_version_id",
    "/clip/embed_image": "clip_version_id",
    "/clip/compare": "clip_version_id",
    "/perception_encoder/embed_text": "perception_encoder_version_id",
    "/perception_encoder/embed_image": "perception_encoder_version_id",
    "/perception_encoder/compare": "perception_encoder_version_id",
    "/doctr/ocr": "doctr_version_id",
    "/easy_ocr/ocr": "easy_ocr_version_id",
    "/ocr/trocr": "trocr_version_id",
    "/grounding_dino/infer": "grounding_dino_version_id",
    "/yolo_world/infer": "yolo_world_version_id",
    "/owlv2/infer": "owlv2_version_id",
    "/sam/embed_image": "sam_version_id",
    "/sam/segment_image": "sam_version_id",
    "/sam2/embed_image": "sam2_version_id",
    "/sam2/segment_image": "sam2_version_id",
    "/infer/depth-estimation": "depth_version_id",
}
VERSION_MEMBERS = sorted(set(BY_VERSION.values()))
OTHERS = ("/ocr/pp-ocr", "/sam3/embed_image", "/sam3/visual_segment")
"""Made of stages, or always the same."""
FORMS = (
    *BY_MEMBER * 3,
    *BY_MEMBER_TOO,
    *BY_PATH * 2,
    *BY_VERSION,
    *OTHERS,
    "/clip/embed_text",
    "/ocr/pp-ocr",
)
NEEDED: dict[str, dict[str, Any]] = {
    "/clip/compare": {"subject": image(), "prompt": "a"},
    "/perception_encoder/compare": {"subject": image(), "prompt": "a"},
    "/infer/action_recognition": {"video": image()},
    "/owlv2/infer": {"training_data": [{"boxes": [], "image": image()}]},
    "/sam3_3d/infer": {"mask_input": [1, 1, 9, 1, 9, 9]},
    "/yolo_world/infer": {"text": ["a"]},
    "/grounding_dino/infer": {"text": ["a"]},
    "/sam3/concept_segment": {"prompts": [{"type": "text", "text": "a"}]},
}
"""Members without which the handler would not begin."""
CONTENT_TYPES = (
    *("APPLICATION/JSON; charset=utf-16", "application/vnd.a+json", "text/plain", "multipart/form-data"),
    *("application/json, text/plain", None),
)
PATH_CHANGES = {
    "slash": lambda path: path[0] + path[1:].replace("/", "%2F"),
    "double": lambda path: path.replace("/", "//", 2),
    "trailing": lambda path: path + "/",
    "dots": lambda path: "/x/.." + path,
    "capitals": str.title,
    "parameter": lambda path: path + ";api_key=x",
}


@dataclass(frozen=True)
class RandomRequest:
    """A request, and all keys that it has in a place where a key may count."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    keys: frozenset[str]
    keys_beside_body: frozenset[str]  # a body that is streamed is an image, and no key is read in it


def often(draw, percent: int) -> bool:
    return draw(st.integers(0, 99)) >= 100 - percent  # what is simplest for Hypothesis is what is usual


@st.composite
def _paths(draw, form: str, model: str):
    path = form.format(model)
    if often(draw, 10):
        path = PATH_CHANGES[draw(st.sampled_from(sorted(PATH_CHANGES)))](path)
    path = quote(path, safe="/%,.:;=")
    if len(path) > 1 and often(draw, 15):
        at = draw(st.integers(1, len(path) - 1))
        if path[at].isalnum() and "%" not in path[max(0, at - 2) : at]:
            path = f"{path[:at]}%{ord(path[at]):02X}{path[at + 1 :]}"
    return path


@st.composite
def _members(draw, form: str, model: str):
    """The members of the body in some order, duplicates among them, without a key."""
    members: list[tuple[str, Any]] = list(({"image": image(), "text": "a"} | NEEDED.get(form, {})).items())
    if (
        form in (*BY_MEMBER, *BY_MEMBER_TOO) and not often(draw, 10 if form in BY_MEMBER_TOO else 0)
    ) or often(draw, 10):
        members.append(("model_id", model))
    if often(draw, 25 if form in BY_PATH else 10):
        members.append(("model_id", draw(st.sampled_from((*GOOD_IDS, *BAD_IDS)))))
    if form in BY_VERSION and often(draw, 50):
        members.append((BY_VERSION[form], draw(st.sampled_from(VERSIONS))))
    if often(draw, 5):
        members.append(
            (draw(st.sampled_from(sorted(set(BY_VERSION.values())))), draw(st.sampled_from(VERSIONS)))
        )
    if often(draw, 40 if "pp-ocr" in form else 3):
        members.append(
            (draw(st.sampled_from(("text_detection", "pp_ocr_version_id"))), draw(st.sampled_from(STAGES)))
        )
    if often(draw, 5):
        members.append(("Model_id", draw(st.sampled_from(GOOD_IDS))))
    return members


@st.composite
def requests(draw, tokens: Mapping[str, str], forms: Sequence[str] = FORMS):
    """Any request; `tokens` are the keys that it may have, `forms` its routes."""
    form = draw(st.sampled_from(forms))
    model = draw(st.sampled_from(GOOD_IDS if often(draw, 80) else BAD_IDS))
    method = "GET" if form.startswith("/start") else "POST"
    if often(draw, 6):
        method = draw(st.sampled_from(("GET", "PUT", "HEAD")))
    target = draw(_paths(form, model))
    members = draw(_members(form, model))
    headers: list[tuple[str, str]] = []
    query: list[str] = []

    names = st.sampled_from(sorted(tokens))
    key = tokens[draw(names)]
    places = draw(st.lists(st.sampled_from(("header", "query", "body")), min_size=1, max_size=3))
    used = []
    for place in places:
        used.append(tokens[draw(names)] if often(draw, 8) else key)
        if place == "header":
            scheme = draw(st.sampled_from(("Bearer ",) * 8 + ("bearer   ", "Basic ", "")))
            headers.append(("Authorization", scheme + used[-1]))
        elif place == "query":
            name = draw(st.sampled_from(("api_key",) * 8 + ("api%5Fkey", "API_KEY")))
            query.append(f"{name}={quote(used[-1])}")
            if name == "API_KEY":  # no handler knows it, and it is not sent on
                used[-1] = ""
        else:
            members.append(("api_key", used[-1]))
    if often(draw, 10):
        members.append(("inner", {"model_id": CARS, "api_key": "a third party's"}))
    if often(draw, 8):
        name = draw(st.sampled_from(("model_id", "dataset_id", "confidence", "clip_version_id")))
        query.append(f"{name}={quote(draw(st.sampled_from(GOOD_IDS)))}")
    kind: str | None = "application/json"
    if often(draw, 10):
        kind = draw(st.sampled_from(CONTENT_TYPES))
    headers += [] if kind is None else [("Content-Type", kind)]
    has_body = method != "GET" or often(draw, 10)
    beside = [one for place, one in zip(places, used, strict=True) if place != "body"]
    if not has_body:
        used = beside
    return RandomRequest(
        method=method,
        target="?".join([target, "&".join(query)] if query else [target]),
        headers=tuple(draw(st.permutations(headers))),
        body=_written(draw, draw(st.permutations(members))) if has_body else b"",
        keys=frozenset(used) - {""},  # an empty one is none
        keys_beside_body=frozenset(beside) - {""},
    )


def _written(draw, members: list[tuple[str, Any]]) -> bytes:
    text = ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in members)
    text = "{" + text + "}"
    if not often(draw, 10):
        return text.encode()
    encoding = draw(st.sampled_from(("utf-16", "utf-8-sig", "utf-32", "escaped", "twice")))
    if encoding == "escaped":
        return text.replace('"model_id"', '"model\\u005fid"', 1).encode()
    return text.encode() * 2 if encoding == "twice" else text.encode(encoding)


def examples(number: int, phases: Sequence[Phase] = (Phase.generate, Phase.shrink)) -> settings:
    """So many examples, however long each takes on this machine; the same in each run of the same code."""
    return settings(
        max_examples=number,
        derandomize=True,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
