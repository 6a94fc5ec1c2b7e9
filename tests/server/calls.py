"""What the tests call of the SDK: each client method for what is open to tenants, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from http_client import encoded
from tenants_models import ALIAS, BOXES, CARS, CHILD, CLIP, SAM2, STATIC_ALIAS


@dataclass(frozen=True)
class Call:
    """A method with its arguments, the models that the server is to use, and what it answers."""

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = ()  # as the server's handler names them
    version: str = "v1"
    status: int = 200  # of the bare server too: core models without weights here fail at the same place

    def __str__(self) -> str:
        more = [str(self.arguments[name]) for name in ("model_id", "model") if name in self.arguments]
        return "-".join([self.method, self.version, *more])


PICTURE, OTHER = encoded(), encoded(1)
POINT = [{"points": [{"x": 10, "y": 12, "positive": True}]}]
CLIP_COMPARE = {"subject": PICTURE, "clip_version": "ViT-B-16"}

PREDICTING = (
    Call("infer", {"inference_input": PICTURE, "model_id": CARS}, (CARS,)),
    Call("infer", {"inference_input": [PICTURE, OTHER], "model_id": CARS}, (CARS, CARS)),
    Call("infer", {"inference_input": PICTURE, "model_id": BOXES}, (BOXES,)),
    Call("infer", {"inference_input": PICTURE, "model_id": CHILD}, (CHILD,)),
    Call("infer", {"inference_input": PICTURE, "model_id": ALIAS}, (ALIAS,)),
    # The SDK resolves the server's own aliases by itself.
    Call("infer", {"inference_input": PICTURE, "model_id": STATIC_ALIAS}, ("classifiers/1",)),
    Call("infer_async", {"inference_input": PICTURE, "model_id": CARS}, (CARS,)),
    Call("infer", {"inference_input": PICTURE, "model_id": CARS}, (CARS,), version="v0"),
    Call("infer_async", {"inference_input": PICTURE, "model_id": BOXES}, (BOXES,), version="v0"),
    Call("infer_lmm", {"inference_input": PICTURE, "model_id": CARS, "prompt": "what is it?"}, (CARS,)),
    Call("infer_lmm", {"inference_input": PICTURE, "model_id": CARS, "model_id_in_path": True}, (CARS,)),
    Call("infer_lmm_async", {"inference_input": PICTURE, "model_id": CARS}, (CARS,)),
    Call("get_clip_image_embeddings", {"inference_input": PICTURE}, (CLIP,)),
    Call("get_clip_image_embeddings_async", {"inference_input": [PICTURE, OTHER]}, (CLIP, CLIP)),
    Call("get_clip_text_embeddings", {"text": ["a", "b"], "clip_version": "ViT-B-16"}, (CLIP,)),
    Call("get_clip_text_embeddings_async", {"text": "a"}, (CLIP,)),
    Call("clip_compare", CLIP_COMPARE | {"prompt": ["a", "b"]}, (CLIP,)),
    Call("clip_compare", CLIP_COMPARE | {"prompt": OTHER, "prompt_type": "image"}, (CLIP,)),
    Call("clip_compare_async", CLIP_COMPARE | {"prompt": [PICTURE, OTHER], "prompt_type": "image"}, (CLIP,)),
    Call("sam2_segment_image", {"inference_input": PICTURE, "prompts": POINT}, (SAM2,)),
    Call("sam2_segment_image_async", {"inference_input": PICTURE, "prompts": POINT}, (SAM2,)),
)
"""What predicts here. `models` has one for each request that the method makes for it."""

FAILING = (
    Call("get_image_embeddings", {"inference_input": PICTURE, "model_id": CARS}, (CARS,), status=500),
    Call("get_image_embeddings_async", {"inference_input": PICTURE, "model_id": CARS}, (CARS,), status=500),
    Call("ocr_image", {"inference_input": PICTURE, "model": "doctr"}, ("doctr/default",), status=404),
    Call(
        "ocr_image", {"inference_input": PICTURE, "model": "trocr"}, ("trocr/trocr-base-printed",), status=404
    ),
    Call(
        "ocr_image", {"inference_input": PICTURE, "model": "easy_ocr"}, ("easy_ocr/english_g2",), status=404
    ),
    Call("ocr_image", {"inference_input": PICTURE, "model": "pp_ocr"}, ("pp_ocr/small-small",), status=404),
    Call("ocr_image_async", {"inference_input": PICTURE, "model": "doctr"}, ("doctr/default",), status=404),
    Call(
        "get_perception_encoder_image_embeddings",
        {"inference_input": PICTURE},
        ("perception_encoder/PE-Core-L14-336",),
        status=404,
    ),
    Call(
        "get_perception_encoder_text_embeddings",
        {"text": "a"},
        ("perception_encoder/PE-Core-L14-336",),
        status=404,
    ),
    Call("depth_estimation", {"inference_input": PICTURE}, ("depth-anything-v3/small",), status=404),
    Call(
        "depth_estimation_async",
        {"inference_input": PICTURE, "model_id": "depth-anything-v2/small", "model_id_in_path": True},
        ("depth-anything-v2/small",),
        status=404,
    ),
    Call(
        "sam3_concept_segment",
        {"inference_input": PICTURE, "prompts": [{"type": "text", "text": "a"}]},
        ("sam3/sam3_final",),
        status=500,
    ),
    Call("sam3_visual_segment", {"inference_input": PICTURE}, ("sam3/sam3_interactive",), status=500),
    Call("sam3_embed_image", {"inference_input": PICTURE}, ("sam3/sam3_interactive",), status=500),
    Call(
        "infer_from_yolo_world",
        {"inference_input": PICTURE, "class_names": ["a"], "model_version": "l"},
        ("yolo_world/l",),
        status=500,
    ),
)
"""What the server fails at here, for want of weights or of an extra: after it took model and key."""

CLOSED = (
    Call("unload_model", {"model_id": CARS}),
    Call("unload_all_models"),
    Call("list_inference_pipelines"),
)
"""What no rule can open to tenants."""
