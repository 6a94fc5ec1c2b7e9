"""A tenant's process: the unmodified engine, told over a socket what to load. Runs in `.venv-engine`.

The engine reads its variables once, when it is imported, so every set of variables needs a process of its
own; and torch takes seconds to import. So one process imports the engine's dependencies, and forks for each
connection; the fork sets its variables and imports the engine itself. The engine is not changed. Two things
around it are: the operators that torchvision's CUDA build would bring are declared (they do not load beside a
CPU torch), and only loopback addresses can be reached.

`client.py SOCKET` prints `ready`. A connection exchanges lines of JSON:

    {"variables": {...}, "folder": "..."}                      -> {"ok": true}
    {"do": "load", "model": "...", "arguments": {...}}         -> {"ok", "exception", "message", "prediction",
                                                                   "network": ["host:port", ...], "seconds"}
    {"do": "find", "model": "...", "api_key": "..."}           -> {"ok", "path", ...}
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback

STANDS_ON = (
    *("torch", "torchvision", "onnxruntime", "numpy", "cv2", "skimage", "supervision", "pycocotools.mask"),
    *("requests", "pydantic.main", "rich.progress", "filelock", "backoff", "dotenv"),
)
"""No Hugging Face library among them: those read their variables at import, as the engine does."""
LOOPBACK = ("127.", "::1", "localhost")

_reached: list[str] = []
_connect = socket.socket.connect


def _connect_to_loopback_only(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        _reached.append(f"{address[0]}:{address[1]}")
        if not str(address[0]).startswith(LOOPBACK):
            raise OSError(f"the network is off: {address[0]}")
    return _connect(self, address)


def prepare():
    """Import what takes long, once."""
    socket.socket.connect = _connect_to_loopback_only
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)  # no thread may be running when we fork
    operators = torch.library.Library("torchvision", "DEF")
    operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in STANDS_ON:
        importlib.import_module(name)
    gc.freeze()  # what is there stays there: forks share its memory
    return operators  # the declarations last as long as this object


def serve(address):
    """Fork for every connection; a fork ends with its connection."""
    operators = prepare()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended forks are nobody's concern
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(16)
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                talk(connection)
                os._exit(0)
            connection.close()
    del operators


def talk(connection):
    """Take orders until there are no more."""
    lines = connection.makefile("r")
    first = json.loads(lines.readline())
    os.environ.update(first["variables"])  # noqa: TID251 -- the engine reads them there
    os.chdir(first["folder"])
    orders = {"load": load, "find": find}
    answer = attempt(lambda: {"version": importlib.import_module("inference_models").__name__})
    while True:
        connection.sendall(json.dumps(answer).encode() + b"\n")
        line = lines.readline()
        if not line:
            return
        order = json.loads(line)
        answer = attempt(lambda order=order: orders[order.pop("do")](**order))


def attempt(work):
    """What the work came to, as plain values."""
    _reached.clear()
    started = time.monotonic()
    answer = {"ok": True, "exception": None, "message": ""}
    try:
        answer |= work()
    except Exception as error:  # noqa: BLE001 -- which one it is, is what the tests ask
        answer |= {"ok": False, "exception": type(error).__name__, "message": str(error)}
        answer["trace"] = traceback.format_exc()
    return answer | {"network": list(_reached), "seconds": time.monotonic() - started}


def load(model, arguments):
    """Load it as a tenant's program does, and predict on one fixed image."""
    engine = importlib.import_module("inference_models")
    loaded = engine.AutoModel.from_pretrained(model, device="cpu", **arguments)
    seconds_to_load = time.monotonic()
    return {
        "class_names": list(loaded.class_names),
        "prediction": plain(loaded(image())),
        "predicted_in": time.monotonic() - seconds_to_load,
    }


def find(model, api_key=None):
    """Where on the disk a model lies, by the engine's own lookup."""
    core = importlib.import_module("inference_models.models.auto_loaders.core")
    return {"path": core.find_cached_model_package_dir(model_id=model, api_key=api_key)}


def image():
    """The same for all: every pixel another colour."""
    numpy = importlib.import_module("numpy")
    return numpy.arange(48 * 64 * 3, dtype=numpy.uint32).reshape(48, 64, 3).astype(numpy.uint8)


def plain(value):
    """Predictions as plain lists, to the last bit."""
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value.tolist() if hasattr(value, "tolist") else value


if __name__ == "__main__":
    serve(sys.argv[1])
