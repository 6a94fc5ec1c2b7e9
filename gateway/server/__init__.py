"""The HTTP server we run on: what a client may send, worker processes, and how they are watched."""
