"""`guarded_loading`: load models for tenants in the operator's own process, each load decided.

    with guarded_loading() as guarded:
        model = guarded.from_pretrained("acme/cars/1", api_key=key, client=address)

The access manager answers the engine's hooks. Some ways to load bypass the hooks and are controlled by
arguments, whose defaults allow them; so those arguments are set here and cannot be set otherwise:

    allow_direct_local_storage_loading=False   a name that exists as a path is not read from there
    use_auto_resolution_cache=False            the provider is asked at each load, and what comes from disk is
                                               hashed; the cached way does neither for up to 24 hours
    allow_untrusted_packages=False             no package with unreviewed code
    allow_local_code_packages=False            no Python code from a model's folder
    download_files_without_hash=False          no file that could be replaced in transit
    verify_hash_while_download=True

An environment that would undo this stops the start: with `ROBOFLOW_API_KEY` set, every caller without a key
gets the operator's. What remains open is listed at `CachegateAccessManager`.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog

from gateway.configuration.sources import load_settings
from gateway.inprocess.access_manager import CachegateAccessManager
from gateway.inprocess.engine import (
    load_auto_model,
    load_engine_errors,
    load_operator_key,
    register_hooks,
    verify_arguments,
)
from gateway.inprocess.hook_request import NO_ADDRESS
from gateway.inprocess.instances import Instances
from gateway.inprocess.process import GuardedProcess
from gateway.model.access import Action
from gateway.model.errors import Misconfigured
from gateway.telemetry import configure_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.configuration.settings import Settings
    from gateway.inprocess.engine import EngineErrors

SAFE_ARGUMENTS: dict[str, Any] = {
    "allow_direct_local_storage_loading": False,
    "use_auto_resolution_cache": False,
    "allow_untrusted_packages": False,
    "allow_local_code_packages": False,
    "download_files_without_hash": False,
    "verify_hash_while_download": True,
}
"""The arguments that `AutoModel` and `AutoModelPipeline` are always called with."""

OURS = frozenset(
    {
        *SAFE_ARGUMENTS,
        "model_access_manager",
        "weights_provider",  # another provider would be asked without our hooks
        "allow_vllm_proxy",  # sends the key and the input elsewhere after one question
        "preloaded_model_dependencies",  # it is not known for whom they were loaded
        "auto_resolution_cache",
        "content_addressed_artifact_cache",  # one credential for everybody's files
    }
)
"""Arguments that a caller may not set."""


class GuardedLoading:
    """Loads models for callers with keys. Used from any thread."""

    def __init__(
        self,
        process: GuardedProcess,
        load: Callable[..., Any],
        *,
        errors: EngineErrors,
        action: Action = Action.INFER,
        max_instances: int = 0,
    ) -> None:
        verify_arguments(load, OURS)
        self._process = process
        self._load = load
        self._errors = errors
        self._action = action
        self._instances = Instances(max_instances)

    def manager(self, client: str = NO_ADDRESS) -> CachegateAccessManager:
        """An access manager for callers from this address."""
        return CachegateAccessManager(
            self._process,
            client=client,
            action=self._action,
            instances=self._instances,
            errors=self._errors,
        )

    def arguments(self, client: str = NO_ADDRESS) -> dict[str, Any]:
        """The arguments for calling the engine's `from_pretrained` directly, beside the key."""
        return {**SAFE_ARGUMENTS, "model_access_manager": self.manager(client)}

    def from_pretrained(
        self, model_id: str, *, api_key: str | None, client: str = NO_ADDRESS, **options: Any
    ) -> Any:
        """The model, if the holder of this key may have it, at the start of the load and at its end.

        Raises what the engine raises, and `Misconfigured` for an option that callers may not set.
        """
        taken = sorted(OURS & options.keys())
        if taken:
            raise Misconfigured("from_pretrained", f"guarded loading sets {', '.join(taken)} itself")
        arguments = self.arguments(client)
        manager = arguments["model_access_manager"]
        try:
            model = self._load(model_id, api_key=api_key, **arguments, **options)
        except self._errors.exhausted:
            manager.verify_access(model_id, api_key)  # so that a key revoked meanwhile is reported as such
            raise
        manager.verify_access(model_id, api_key)
        return model

    def forget(self) -> None:
        """Remove all kept models."""
        self._instances.clear()


@contextmanager
def guarded_loading(
    settings: Settings | None = None, *, action: Action = Action.INFER, max_instances: int = 0
) -> Iterator[GuardedLoading]:
    """Guarded loading for as long as this context lasts, with the settings of file and environment.

    `max_instances` models are kept in memory and returned again to the key that they were loaded for.
    """
    if load_operator_key() is not None:
        raise Misconfigured(
            "ROBOFLOW_API_KEY",
            "is set: the engine takes it for every caller without a key. Unset it for this process",
        )
    register_hooks(CachegateAccessManager)
    if not structlog.is_configured():  # its default prints local variables, and a key is one (I8)
        configure_logs(is_terminal=sys.stderr.isatty())
    with GuardedProcess(settings or load_settings()) as process:
        guarded = GuardedLoading(
            process,
            load_auto_model().from_pretrained,
            errors=load_engine_errors(),
            action=action,
            max_instances=max_instances,
        )
        try:
            yield guarded
        finally:
            guarded.forget()
