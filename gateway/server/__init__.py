"""The HTTP server under the gateway: bounded HTTP/1.1 parsing, worker processes and their supervisor."""
