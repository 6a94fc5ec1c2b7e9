"""The images of a JSON body: what a handler would load from where.

An image is `{"type": …, "value": …}`. The server loads it from a URL or a file as its type says, in any case
of letters; it guesses where a text without a type stands for an image, and reads an object as a set of such
texts where its class of requests allows that. So every image is written anew in the one form that names
nothing to load, `{"type": "base64", "value": …}`, and those at URLs are listed, for the gateway to fetch.

Non-goals: whether a URL may be fetched, and fetching it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.front_door.values import ImageUrl
from gateway.model.errors import Reason, Refusal
from gateway.model.limits import MAX_IMAGE_URLS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.front_door.values import Place

MAX_URL_CHARACTERS = 4096
"""Of a URL, signature included."""

TEXT_TYPES = {"subject": ("subject_type", "image"), "prompt": ("prompt_type", "text")}
"""Members that are an image or a text: the member that says which, and what it says when it is absent."""

EXAMPLES = "training_data"
"""The member with images to learn from: a list of objects, each with an image among other things."""

INLINE = "base64"
_STATED = "data:image/png;base64,"
"""Before the text of an example. Its handler gets the text alone, without the type, and takes it for a URL, a
file or base64 by how it looks; with this before it, it is base64, of whatever format."""

_GUESSED_URL = "http"  # a text that begins so is fetched, where the server guesses


class ImageReader:
    """Reads the images of one request, and collects those at URLs in the order of their places."""

    def __init__(self) -> None:
        self.urls: list[ImageUrl] = []

    def read_member(self, document: dict[str, Any], member: str) -> None:
        """Read the images in a member of the body, and write them there in the one form."""
        if document.get(member) is None:
            return
        if member in TEXT_TYPES:
            type_member, default = TEXT_TYPES[member]
            if document.get(type_member, default) == "text":
                return  # texts are embedded, never loaded
            document[member] = self._compared(document[member], (member,), may_be_many=member == "prompt")
        elif member == EXAMPLES:
            document[member] = self._examples(document[member])
        else:
            document[member] = self._one_or_list(document[member], (member,))

    def at_url(self, url: Any, place: Place | None) -> None:
        """Name an image that the server would fetch."""
        if not isinstance(url, str) or not 0 < len(url) <= MAX_URL_CHARACTERS:
            raise Refusal(Reason.FORBIDDEN_IMAGE)
        if len(self.urls) >= MAX_IMAGE_URLS:
            raise Refusal(Reason.FORBIDDEN_IMAGE)
        self.urls.append(ImageUrl(url=url, place=place))

    def _one_or_list(self, value: Any, place: Place) -> Any:
        if isinstance(value, list):
            return [self._image(image, (*place, index)) for index, image in enumerate(value)]
        return self._image(value, place)

    def _image(self, value: Any, place: Place) -> dict[str, Any]:
        """An image with its type. One without, or with more members, is read in more than one way."""
        if not isinstance(value, dict) or not set(value) <= {"type", "value"}:
            raise Refusal(Reason.MALFORMED_BODY)
        kind = value.get("type")
        if not isinstance(kind, str):
            raise Refusal(Reason.MALFORMED_BODY)
        content = value.get("value")
        if kind.lower() == "url":
            self.at_url(content, place)
            return {"type": INLINE, "value": ""}
        if kind.lower() != INLINE:
            raise Refusal(Reason.FORBIDDEN_IMAGE)  # files, and pickled arrays
        if not isinstance(content, str):
            raise Refusal(Reason.MALFORMED_BODY)
        return {"type": INLINE, "value": content}

    def _examples(self, value: Any) -> list[dict[str, Any]]:
        """Examples, each with its image."""
        if not isinstance(value, list) or not all(isinstance(one, dict) and "image" in one for one in value):
            raise Refusal(Reason.MALFORMED_BODY)
        examples = []
        for index, one in enumerate(value):
            image = self._image(one["image"], (EXAMPLES, index, "image"))
            text = image["value"] if image["value"].startswith("data:") else _STATED + image["value"]
            examples.append({**one, "image": {**image, "value": text}})
        return examples

    def _compared(self, value: Any, place: Place, *, may_be_many: bool) -> Any:
        """What is compared: an image, with or without its type; as a prompt also a list or a set of them.

        A single prompt becomes a list of one: the server reads an image with its type as a set of two texts,
        and guesses what each is.
        """
        if isinstance(value, list) and may_be_many:
            return [self._typed_or_guessed(image, (*place, index)) for index, image in enumerate(value)]
        if isinstance(value, dict) and may_be_many and not isinstance(value.get("type"), str):
            return {name: self._typed_or_guessed(image, (*place, name)) for name, image in value.items()}
        if may_be_many:
            return [self._typed_or_guessed(value, (*place, 0))]
        return self._typed_or_guessed(value, place)

    def _typed_or_guessed(self, value: Any, place: Place) -> dict[str, Any]:
        if isinstance(value, str):
            kind = "url" if value.startswith(_GUESSED_URL) else INLINE
            return self._image({"type": kind, "value": value}, place)
        return self._image(value, place)


def with_images(document: dict[str, Any], fetched: Iterator[tuple[Place, str]]) -> dict[str, Any]:
    """The document with the fetched images at their places. The document itself stays as it is."""
    changed = dict(document)
    for place, image in fetched:
        at: Any = changed
        for step in place[:-1]:
            at[step] = at[step].copy()
            at = at[step]
        before = _STATED if place[0] == EXAMPLES else ""
        at[place[-1]] = {"type": INLINE, "value": before + image}
    return changed
