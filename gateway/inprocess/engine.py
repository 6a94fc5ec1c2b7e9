"""What is imported from the engine: its exceptions, its base class, and the names of its arguments.

Imported when something is about to be loaded and not before, because importing the engine imports torch.
Refusals are the engine's own exceptions: an application that catches what the engine raises over the network
catches the same in process.

    no valid key                    UnauthorizedModelAccessError
    not yours, or not there         ModelNotFoundError: one type and one text for both (I3)
    yours to know of, not to use    ForbiddenModelAccessError
    undecided                       RetryError

The engine's newer versions may call hooks that are unknown here. A hook without an implementation, or an
argument that is swallowed by `**kwargs`, would bypass the guard; so both are checked before anything is
loaded, and stop the start.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.model.errors import Misconfigured, Reason
from gateway.problems import PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ENGINE = "inference_models"

_TEXTS = {
    401: "There is no valid API key for this load.",
    403: "This key may know of this model, but not use it.",
    404: "There is no such model that this key may know of.",
    503: "The guard cannot decide or record right now. Nothing was loaded. Try again.",
}
_CREDENTIAL_REASONS = frozenset({Reason.MALFORMED_CREDENTIAL, Reason.CONFLICTING_CREDENTIALS})
_UNDECIDED_STATUS = 500


class EngineErrors(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's exception classes, by what they mean."""

    unauthorized: type[Exception]
    forbidden: type[Exception]
    not_found: type[Exception]
    undecided: type[Exception]
    payment_required: type[Exception]
    usage_paused: type[Exception]
    exhausted: type[Exception]  # every package failed: raised after a refusal in `on_model_loaded`

    def refusal(self, reason: Reason) -> Exception:
        """The exception for a reason. Its text is the same whatever model or key it is about."""
        status = status_of(reason)
        classes = {
            401: self.unauthorized,
            402: self.payment_required,
            403: self.forbidden,
            423: self.usage_paused,
            503: self.undecided,
        }
        return classes.get(status, self.not_found)(_TEXTS.get(status, _TEXTS[404]))


def status_of(reason: Reason) -> int:
    """The HTTP status that a reason has here: that of the network face, with fewer kinds.

    A name or a key that does not parse is answered as one that does not exist, or is not valid.
    """
    if reason in _CREDENTIAL_REASONS:
        return 401
    status = PROBLEMS[reason].status
    if status in {401, 402, 403, 423}:
        return status
    return 503 if status >= _UNDECIDED_STATUS else 404


def load_engine_errors() -> EngineErrors:
    """The engine's own classes. Raises `Misconfigured` without the engine."""
    errors = _load(f"{ENGINE}.errors")
    return EngineErrors(
        unauthorized=errors.UnauthorizedModelAccessError,
        forbidden=errors.ForbiddenModelAccessError,
        not_found=errors.ModelNotFoundError,
        undecided=errors.RetryError,
        payment_required=errors.PaymentRequiredModelAccessError,
        usage_paused=errors.UsagePausedModelAccessError,
        exhausted=errors.ModelPackageAlternativesExhaustedError,
    )


def load_auto_model() -> Any:
    """The engine's `AutoModel`."""
    return _load(ENGINE).AutoModel


def load_operator_key() -> str | None:
    """The key that the engine uses for callers without one. Only whether it is set matters."""
    key: str | None = _load(f"{ENGINE}.configuration").ROBOFLOW_API_KEY
    return key


def register_hooks(hooks: type) -> None:
    """Register a class as one of the engine's access managers. Raises `Misconfigured` if it lacks a hook."""
    manager = _load(f"{ENGINE}.models.auto_loaders.access_manager").ModelAccessManager
    verify_hooks(hooks, manager.__abstractmethods__)
    manager.register(hooks)


def verify_hooks(hooks: type, asked: Iterable[str]) -> None:
    """Verify that we implement every hook that the engine calls."""
    unknown = sorted(name for name in asked if not callable(getattr(hooks, name, None)))
    if unknown:
        raise Misconfigured(
            ENGINE,
            f"this version asks {', '.join(unknown)}, which this Cachegate does not answer; upgrade",
        )


def verify_arguments(load: Callable[..., Any], names: Iterable[str]) -> None:
    """Verify that the engine knows every argument that we set, under this name."""
    known = inspect.signature(load).parameters
    unknown = sorted(name for name in names if name not in known)
    if unknown:
        raise Misconfigured(
            ENGINE, f"this version does not know {', '.join(unknown)}, which guarded loading sets; upgrade"
        )


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != ENGINE:
            raise  # the engine is installed and lacks a dependency: its message says which
        raise Misconfigured(
            ENGINE, "is not installed here; `pip install 'cachegate[engine]'` brings it, and torch with it"
        ) from error
