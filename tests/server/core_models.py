"""Build the files of core models that the server loads. Runs in `.venv-server`: `core_models.py FOLDER`.

CLIP is two tiny ONNX graphs. SAM 2 is the real architecture in its smallest size with weights from a seed
(160 MB, built once a session): what it segments is noise, but the same noise for the same picture, so that
a test tells whose embedding it was. The tenants' own models are those of the engine's tests (models.py).

    clip/visual.onnx, clip/textual.onnx
    sam2/model.pt, sam2/sam_configuration.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SIDE, WIDTH, TOKENS = 32, 8, 77
OPSET, IR_VERSION = 17, 8  # as models.py


def build_clip(folder):
    """Pooled channels, or the sum of the tokens, times a matrix."""
    import numpy as np  # noqa: PLC0415 -- what is below runs in the server's environment alone
    from onnx import TensorProto, helper  # noqa: PLC0415

    random = np.random.default_rng(11)
    folder.mkdir(parents=True)
    matrix = random.normal(size=(3, WIDTH)).astype(np.float32)
    pooled = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "matrix"], ["embedding"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    _save(folder / "visual.onnx", pooled, image, matrix)
    matrix = random.normal(size=(TOKENS, WIDTH)).astype(np.float32)
    summed = [
        helper.make_node("Cast", ["text"], ["features"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["features", "matrix"], ["embedding"]),
    ]
    text = helper.make_tensor_value_info("text", TensorProto.INT32, ["batch", TOKENS])
    _save(folder / "textual.onnx", summed, text, matrix)


def _save(path, nodes, taken, matrix):
    import onnx  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    given = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", WIDTH])
    graph = helper.make_graph(nodes, "tiny", [taken], [given], [numpy_helper.from_array(matrix, "matrix")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.save(model, path)


def build_sam2(folder):
    """The smallest SAM 2, with weights from a seed."""
    import torch  # noqa: PLC0415
    from sam2.build_sam import build_sam2 as build_architecture  # noqa: PLC0415

    folder.mkdir(parents=True)
    torch.manual_seed(12)
    model = build_architecture("sam2_hiera_t.yaml", None, device="cpu")
    torch.save({"model": model.state_dict()}, folder / "model.pt")
    (folder / "sam_configuration.json").write_text(json.dumps({"version": "sam2_hiera_t"}))


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1] / "engine"))
    from client import prepare

    operators = prepare()
    build_clip(Path(sys.argv[1]) / "clip")
    build_sam2(Path(sys.argv[1]) / "sam2")
