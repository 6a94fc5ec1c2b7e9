"""The operator's own process with guarded loading in it. Runs in `.venv-engine`, with our packages added.

`guarded_process.py SITE` adds the folder SITE, with what Cachegate needs, after the engine's own packages,
and prints `{"ok": true}` once it is guarded. Then it reads orders, one line of JSON each:

    {"do": "load", "model": "...", "api_key": "...", "client": "...", "options": {...}}
    {"do": "arguments", "model": "...", "api_key": "..."}     the engine called by hand, with our arguments

and answers as client.py does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from client import attempt, image, plain, prepare

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # the engine prints its progress there


def main():
    operators = prepare()
    sys.path.append(sys.argv[1])
    sys.path.append(str(Path(__file__).parents[2]))
    from gateway.inprocess.loading import guarded_loading  # noqa: PLC0415 -- found only now

    started = attempt(lambda: {"context": guarded_loading(max_instances=4)})
    if not started["ok"]:
        say(started)
        return
    context = started.pop("context")
    entered = attempt(lambda: {"guarded": context.__enter__()})
    guarded = entered.pop("guarded", None)
    say(entered)
    if guarded is None:
        return
    orders = {
        "load": lambda **order: load(guarded, **order),
        "arguments": lambda **order: by_hand(guarded, **order),
    }
    try:
        for line in sys.stdin:
            order = json.loads(line)
            say(attempt(lambda order=order: orders[order.pop("do")](**order)))
    finally:
        context.__exit__(None, None, None)
    del operators


def say(answer):
    print(json.dumps(answer), file=answers, flush=True)


def load(guarded, model, api_key=None, client="in-process", options=None):
    loaded = guarded.from_pretrained(model, api_key=api_key, client=client, device="cpu", **(options or {}))
    return {
        "class_names": list(loaded.class_names),
        "prediction": plain(loaded(image())),
        "path": str(id(loaded)),
    }


def by_hand(guarded, model, api_key=None):
    import inference_models  # noqa: PLC0415 -- after `prepare`

    loaded = inference_models.AutoModel.from_pretrained(
        model, api_key=api_key, device="cpu", **guarded.arguments()
    )
    return {"class_names": list(loaded.class_names), "prediction": plain(loaded(image()))}


if __name__ == "__main__":
    main()
