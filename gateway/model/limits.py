"""Limits on the size of a request, shared by the modules that enforce or state them.

The server stops reading beyond them, the middleware refuses beyond them on any other server, and
the problem texts state them.
"""

from __future__ import annotations

MAX_TARGET_BYTES = 8192
"""Path and query. The longest canonical path to a file is below 2.5 kB: a model id of 512 bytes, all
percent-encoded, with a package and a handle. An engine URL that contains another URL may be longer."""

MAX_QUERY_FIELDS = 32
"""Between `&` or `;`, empty ones included. The engine sends three, its callers add a handful; splitting and
checking 8 kB of separators would cost milliseconds before any key is known."""

MAX_HEADER_BYTES = 32 * 1024
"""The whole header block: four times what browsers behind corporate proxies send."""

MAX_HEADER_COUNT = 100
"""Fields in it; Envoy's default."""

MAX_BODY_BYTES = 0
"""Of a route whose callers have a key: none reads a body, so a request that announces one is refused before
it is read. A hook declares a bound of its own (`access.HookRoute`)."""

MAX_IMAGE_URLS = 16
"""Images at URLs in one request to an inference server: each is fetched before anything is sent there."""
