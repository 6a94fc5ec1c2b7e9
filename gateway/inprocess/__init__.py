"""The in-process face: the guard inside a process that runs the engine itself, without an HTTP hop.

For the operator's own processes only. They hold the pepper and reach Redis, so anyone who can run code in one
has the operator's rights. Tenants' code never runs there: their requests come in, are decided like any other,
and get only the results that the process computes with the model.

    hook_request.py     a hook's question as a request that the guard can decide
    process.py          a worker's pipeline on a thread of its own, and how a hook waits for it
    access_manager.py   `CachegateAccessManager`, the engine's hooks
    app.py              `Cachegate`, the guard of a process with an ASGI app of its own
    instances.py        optional cache of loaded models
    engine.py           what is imported from the engine, late: it imports torch
    loading.py          `guarded_loading`: all of it, with the arguments that close other ways to load

Nothing here imports the engine or torch before something is loaded.
"""
