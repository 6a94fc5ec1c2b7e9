"""Names of the private ASGI extensions by which our own server and the guard cooperate.

Other servers lack them. In a scope they carry what the server knows of the connection
(`transfers.ClientEnd`) and of what it sent. The zero-copy extension says whether the server calls checks
before each step of a message; such a message then names the checks.
"""

ZERO_COPY = "http.response.zerocopysend"  # ASGI's own: an extension of a scope, and the type of its message

LOOKS = "cachegate.looks"  # in the extension: the server honours the next two keys of a message
WATCH = "cachegate.watch"  # of a message: called before each step, may delay it and may end it
VERIFY = "cachegate.verify_unchanged"  # of a message: called directly before each step, and after the last

BODY_FOLLOWS = "cachegate.body_follows"  # of a response's start: the body comes next, without a wait

SENT = "cachegate.sent"  # of a scope: how many bytes of the body were sent, also within a message
DRAINED = "cachegate.drained"
ABORT = "cachegate.abort"
GONE = "cachegate.gone"
HAS_STALL_CLOCK = "cachegate.has_stall_clock"  # the server itself cuts off a client that reads nothing
