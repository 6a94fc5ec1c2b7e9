"""The in-process face: the guard inside a process that runs the engine itself, without an HTTP hop.

For the operator's own processes only. They hold the pepper and reach Redis, so whoever runs code in
one is the operator. A tenant never is: its requests come in, are decided like any other, and what
leaves is what the process makes of the model.

    question.py         what a hook asks of the guard, put as a request the guard can judge
    process.py          the worker's rooms on a thread of their own, and how a hook waits for them
    access_manager.py   `CachegateAccessManager`, the engine's hooks
    instances.py        loaded models that are kept, if the operator wants that
    engine.py           what is taken from the engine, imported late: it brings torch along
    loading.py          `guarded_loading`: all of it with the arguments that close the other ways in

Nothing here imports the engine or torch before something is loaded.
"""
