"""The example of the documents with the engine in it, under uvicorn. Runs in `.venv-engine`.

`guarded_app_process.py SITE PORT` adds the folder SITE, with what Cachegate and FastAPI need, after the
engine's own packages, and serves `docs/examples/models_app.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from client import prepare

ROOT = Path(__file__).parents[2]


def main():
    operators = prepare()
    sys.path += [sys.argv[1], str(ROOT), str(ROOT / "docs" / "examples")]
    import uvicorn  # noqa: PLC0415 -- found only now

    uvicorn.run("models_app:app", host="127.0.0.1", port=int(sys.argv[2]), access_log=False)
    del operators


if __name__ == "__main__":
    main()
