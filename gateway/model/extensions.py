"""What our own server and the guard say to each other beyond ASGI, by its names. Others leave all of it.

In a scope, what the server knows of the client's end (`transfers.ClientEnd`) and of what it sent. In the
offer of zero-copy, that each step of a message is looked at; and in such a message, who looks.
"""

ZERO_COPY = "http.response.zerocopysend"  # ASGI's own: an extension of a scope, and the type of its message

LOOKS = "cachegate.looks"  # in the offer: the two keys of a message are heeded
WATCH = "cachegate.watch"  # of a message: asked before each step, may hold it back and may end it
VERIFY = "cachegate.verify_unchanged"  # of a message: called right before each step, and after the last

SENT = "cachegate.sent"  # of a scope: how many bytes of the body went out, in the middle of a message too
DRAINED = "cachegate.drained"
ABORT = "cachegate.abort"
GONE = "cachegate.gone"
HAS_STALL_CLOCK = "cachegate.has_stall_clock"  # the server itself cuts a client that takes in nothing
