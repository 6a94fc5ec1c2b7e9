"""Python imports this at the start of every process that has its folder on the path: a gateway of the tests.

Its workers then fetch images from loopback, where the tests' own servers are. No setting allows that.
"""

from __future__ import annotations

from gateway.adapters.image_fetch import ImageFetcher

ImageFetcher.__init__.__kwdefaults__["private_addresses"] = True
