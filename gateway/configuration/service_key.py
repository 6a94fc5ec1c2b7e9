"""The operator's key for the inference servers, from its setting or its file.

Read when it is used and not with the settings: most commands never need it, and may run as a user who cannot
read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.configuration.settings import variable
from gateway.configuration.values import read_service_key
from gateway.model.errors import Misconfigured
from gateway.model.trusted_files import read_trusted, refusal_of

if TYPE_CHECKING:
    from gateway.configuration.settings import Settings

_MAX_FILE_BYTES = 4096


def load_service_key(settings: Settings) -> str | None:
    """The key, or None where none is set. Raises `Misconfigured`, which never repeats it."""
    path = settings.inference_key_file
    if path is None:
        return settings.inference_key
    where = f"{variable('inference_key_file')}={path}"
    try:
        raw = read_trusted(path, max_bytes=_MAX_FILE_BYTES, is_secret=True)
    except OSError as error:
        raise Misconfigured(where, f"cannot be read ({refusal_of(path, error)})") from error
    try:
        return read_service_key(raw.decode("ascii").removesuffix("\n").removesuffix("\r"))
    except UnicodeError:
        raise Misconfigured(where, "holds no key: it is not ASCII") from None
    except ValueError as error:
        raise Misconfigured(where, str(error)) from None
