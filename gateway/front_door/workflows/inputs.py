"""The inputs of a request to run a workflow: images by the rules of plain routes, and parameters.

The server fetches what an image names, whatever type it gives: a text that begins with `http://` is a URL,
with the type `base64` too. So every image is written anew as base64, and those at URLs are listed, for the
gateway to fetch. What else stands beside an image (the metadata of its video, its origin) stays.

An input that the workflow does not declare is taken out: the server reads none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.front_door.images import INLINE, ImageReader
from gateway.model.errors import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.front_door.values import ImageUrl, Place
    from gateway.front_door.workflows.specification import Specification

_BESIDE = frozenset({"video_metadata", "parent_id", "parent_origin", "root_parent_id", "root_parent_origin"})


def read_inputs(given: Any, specification: Specification) -> tuple[dict[str, Any], tuple[ImageUrl, ...]]:
    """The inputs as they are sent, and the images to fetch first. Raises `Refusal`."""
    if not isinstance(given, dict):
        raise Refusal(Reason.MALFORMED_BODY)
    reader = ImageReader()
    inputs = {
        name: _image(reader, given[name], (name,)) if declared.is_image else given[name]
        for name, declared in specification.inputs.items()
        if name in given
    }
    return inputs, tuple(reader.urls)


def with_fetched(inputs: dict[str, Any], images: Iterable[tuple[ImageUrl, str]]) -> dict[str, Any]:
    """The inputs with the fetched images at their places. The inputs themselves stay as they are."""
    changed = dict(inputs)
    for image, content in images:
        at: Any = changed
        place = image.place or ()
        for step in place[:-1]:
            at[step] = at[step].copy()
            at = at[step]
        at[place[-1]] = at[place[-1]] | {"value": content}
    return changed


def _image(reader: ImageReader, value: Any, place: Place) -> Any:
    """An image, a list of them, or none."""
    if value is None:
        return None
    if isinstance(value, list):
        return [_image(reader, one, (*place, index)) for index, one in enumerate(value)]
    if isinstance(value, str):
        value = {"value": value}
    if not isinstance(value, dict) or not set(value) <= {"type", "value", *_BESIDE}:
        raise Refusal(Reason.MALFORMED_BODY)
    kind, content = value.get("type", INLINE), value.get("value")
    if not isinstance(kind, str) or not isinstance(content, str):
        raise Refusal(Reason.MALFORMED_BODY)
    if kind.lower() not in {INLINE, "url"}:
        raise Refusal(Reason.FORBIDDEN_IMAGE)
    if kind.lower() == "url" or content.lstrip().casefold().startswith("http"):
        reader.at_url(content, place)
        content = ""
    return {**value, "type": INLINE, "value": content}
