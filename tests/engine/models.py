"""Build the files of tiny models that the engine really loads. Runs in `.venv-engine`: `models.py FOLDER`.

A model here is one pooling and one matrix, made from a seed: it loads in a moment, and two seeds give
predictions that differ, so that a test detects whether it got the model it asked for. A large one carries a
tensor that nothing uses. The files are:

    <name>/weights.onnx, class_names.txt, inference_config.json           a `resnet` classifier
    <name>/weights.torchscript, class_names.txt, inference_config.json    a `yolov8` detector with NMS in it

The provider's catalogue says which tenant's model has which of these files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

MEBIBYTE = 1 << 20
SIDE = 32

CLASSIFIERS = {"cars": 1, "parent": 2, "many1": 3, "many2": 4, "vans": 5, "mid": 6, "large": 7, "loose": 8}
PADDING = {"mid": 40 * MEBIBYTE, "large": 140 * MEBIBYTE}
"""Above the engine's 32 MiB it asks for ranges in threads; 140 MiB are eight of them."""
DETECTORS = {"boxes": 9}

CLASSES = ("car", "truck", "bus")
OPSET, IR_VERSION = 17, 8  # old enough for every onnxruntime that the engine allows


def write_classifier(folder, seed, padding_bytes):
    """Pooled channels times a matrix of this seed."""
    import numpy as np  # noqa: PLC0415 -- what is below runs in the engine's environment alone
    import onnx  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    random = np.random.default_rng(seed)
    matrix = random.normal(size=(3, len(CLASSES))).astype(np.float32)
    initializers = [numpy_helper.from_array(matrix, "matrix")]
    if padding_bytes:
        padding = np.frombuffer(random.bytes(padding_bytes), dtype=np.uint8)
        initializers.append(numpy_helper.from_array(padding, "padding"))
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["features"]),
            helper.make_node("MatMul", ["features", "matrix"], ["scores"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", len(CLASSES)])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.save(model, folder / "weights.onnx")
    _write_texts(folder, {"type": "softmax", "fused": False}, {"max_dynamic_batch_size": 8})


def write_detector(folder, seed):
    """One box, whose place comes from the seed and whose confidence from the image."""
    import torch  # noqa: PLC0415

    class OneBox(torch.nn.Module):
        def __init__(self, left: float) -> None:
            super().__init__()
            self.register_buffer("box", torch.tensor([left, 2.0, left + 9.0, 20.0]))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            confidence = torch.sigmoid(image.mean(dim=[1, 2, 3])).reshape(-1, 1)
            boxes = self.box.repeat(image.shape[0], 1)
            return torch.cat([boxes, confidence, torch.ones_like(confidence)], dim=1).unsqueeze(1)

    script = torch.jit.script(OneBox(float(seed)).eval())
    script.save(str(folder / "weights.torchscript"))
    limits = {"max_detections": 10, "confidence_threshold": 0.1, "iou_threshold": 0.5, "class_agnostic": 1}
    _write_texts(folder, {"type": "nms", "fused": True, "nms_parameters": limits}, {"static_batch_size": 1})


def _write_texts(folder, post_processing, forward_pass):
    # A class of its own in every model, so that a prediction tells which one it came from.
    (folder / "class_names.txt").write_text("\n".join([*CLASSES[:-1], folder.name]))
    network_input = {
        "training_input_size": {"height": SIDE, "width": SIDE},
        "dynamic_spatial_size_supported": False,
        "color_mode": "rgb",
        "resize_mode": "stretch",
        "input_channels": 3,
        "scaling_factor": 255,
    }
    config = {
        "network_input": network_input,
        "forward_pass": forward_pass,
        "post_processing": post_processing,
    }
    (folder / "inference_config.json").write_text(json.dumps(config))


def build(folder):
    """All of them below `folder`."""
    for name, seed in CLASSIFIERS.items():
        (folder / name).mkdir(parents=True)
        write_classifier(folder / name, seed, PADDING.get(name, 0))
    for name, seed in DETECTORS.items():
        (folder / name).mkdir(parents=True)
        write_detector(folder / name, seed)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
