"""The engine's hooks, answered by the guard: the same facts, rules and audit log as over HTTP.

    path of a load         decided at                                       by
    any                    is_model_access_forbidden                        requested id
    from the provider      on_model_package_access_granted, each package    canonical id and package
                           retrieve_model_instance, before any download     ends it when none is granted
                           on_model_loaded                                  canonical id and package, again
    from its cache         is_model_package_access_granted                  canonical id and package
    a kept instance        retrieve_model_instance                          canonical id and package

Every decision is in the audit log before the hook answers. A denial raises what the engine itself raises for
it (`engine.py`); an undecided answer raises as well (I7).

**The action** is `infer`. The tenant gets the results of the model and never its files, so the right to read
them is neither needed nor enough. A process that hands the files on asks for `read`.

**Narrowed grants.** A tenant may hold some packages of a model only. The engine lists all of them and no hook
can remove one from the list: so a load goes on while at least one is granted, and one that is not is refused
after it was loaded, whereupon the engine tries the next. Naming the package (`model_package_id`) avoids that.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

from gateway.inprocess.engine import load_engine_errors, register_hooks, status_of
from gateway.inprocess.hook_request import NO_ADDRESS, HookRequest
from gateway.inprocess.instances import Instances, Kept
from gateway.inprocess.process import Granted
from gateway.model.access import Action
from gateway.model.errors import Misconfigured, Reason, Unavailable

if TYPE_CHECKING:
    from gateway.inprocess.engine import EngineErrors
    from gateway.inprocess.process import GuardedProcess
    from gateway.model.verdicts import Declined

ACTIONS = frozenset({Action.INFER, Action.READ})
_PER_PACKAGE = frozenset({403, 404})  # another package may still be granted; an invalid key never is


class AccessIdentifiers(Protocol):
    """The engine's value of this name."""

    model_id: str
    package_id: str
    api_key: str | None


class CachegateAccessManager:
    """The engine's `ModelAccessManager`, for `from_pretrained(model_access_manager=...)`.

    Use it through `guarded_loading`, which sets the arguments that close other ways to load. What no access
    manager can prevent, because the engine does not call it:

    1. `find_cached_model_package_dir` gives any caller any model's folder, and a folder loads without a
       key. Never call it for a tenant; `guarded_loading` refuses folders.
    2. A model id that exists as a path in the working directory is read from there. Refused here, since
       a name that exists as a path is no model id.
    3. A file that is on disk under the MD5 which a provider's answer names is used, whoever it belongs to.
    4. `describe_model`, `describe_model_package`, `list_offline_models`, `verify_offline_model`,
       `download_files_to_directory` and `get_model_from_provider` take no manager.
    5. `preloaded_model_dependencies`, other weights providers, and every model that is in memory already:
       the application decides who may ask it for predictions.
    6. TensorRT packages found in the cache are added to the provider's answer; they are decided as any
       other, but nothing verifies their content.
    7. In OFFLINE_MODE no provider is asked about the key. The hooks are called, so their decision is the
       only one.
    8. Anyone who can read the disk or run code in this process needs no hook.
    """

    def __init__(
        self,
        process: GuardedProcess,
        *,
        client: str = NO_ADDRESS,
        action: Action = Action.INFER,
        instances: Instances | None = None,
        errors: EngineErrors | None = None,
    ) -> None:
        if action not in ACTIONS:
            raise Misconfigured("CachegateAccessManager", "action: expected infer or read")
        if errors is None:
            register_hooks(type(self))
            errors = load_engine_errors()
        self._process = process
        self._client = client
        self._action = action
        self._instances = Instances(0) if instances is None else instances
        self._errors = errors
        self._load = _Load()

    def verify_access(self, model_id: str, api_key: str | None) -> None:
        """Decide about a model once more. Raises what the engine would."""
        answer = self._ask_about_model("confirm", model_id, api_key)
        if not isinstance(answer, Granted):
            raise self._errors.refusal(answer.reason)

    def is_model_access_forbidden(self, model_id: str, api_key: str | None) -> bool:
        """The one hook on every path of a load. True is the engine's 401; every other refusal is raised."""
        self._load.begin()
        answer = self._ask_about_model("load", model_id, api_key)
        if isinstance(answer, Granted):
            return False
        refusal = self._errors.refusal(answer.reason)
        if isinstance(refusal, self._errors.unauthorized):
            return True
        raise refusal

    def on_model_package_access_granted(self, access_identifiers: AccessIdentifiers) -> None:
        """The provider lists a package for this key; it counts as granted if the guard allows it."""
        answer = self._ask_about_package("package", access_identifiers)
        if isinstance(answer, Granted):
            self._load.is_granted = True
            return
        if status_of(answer.reason) not in _PER_PACKAGE:
            raise self._errors.refusal(answer.reason)
        self._load.denied = self._load.denied or answer.reason

    def is_model_package_access_granted(self, model_id: str, package_id: str, api_key: str | None) -> bool:
        """A package of the engine's own cache.

        False makes the engine ask the provider, and call the hooks again.
        """
        answer = self._ask("cached", model_id, package_id, api_key, self._action)
        if isinstance(answer, Granted):
            return True
        if status_of(answer.reason) not in _PER_PACKAGE:
            raise self._errors.refusal(answer.reason)
        return False

    def retrieve_model_instance(
        self,
        model_id: str,
        package_id: str | None,  # noqa: ARG002 -- the engine's signature; the digest covers it
        api_key: str | None,
        loading_parameter_digest: str | None,
    ) -> Any:
        """A kept model, if there is one and its package is granted now; else None.

        The engine calls it a second time once it has listed all packages and before it downloads any: a load
        of which nothing was granted is refused then.
        """
        if self._load.denied is not None and not self._load.is_granted:
            raise self._errors.refusal(self._load.denied)
        kept = self._instances.find(model_id, loading_parameter_digest)
        if kept is None:
            return None
        answer = self._ask("instance", kept.canonical, kept.package, api_key, self._action)
        if not isinstance(answer, Granted):
            self._instances.drop(loading_parameter_digest)
            raise self._errors.refusal(answer.reason)
        return kept.model if answer.key_id == kept.key_id else None

    def on_model_loaded(
        self,
        model: Any,
        access_identifiers: AccessIdentifiers,
        model_storage_path: str,  # noqa: ARG002 -- the engine's signature
    ) -> None:
        """A model is in memory. If its right was revoked while it was loading, it is not handed out."""
        answer = self._ask_about_package("loaded", access_identifiers)
        if not isinstance(answer, Granted):
            raise self._errors.refusal(answer.reason)
        canonical, package = access_identifiers.model_id, access_identifiers.package_id
        self._instances.keep(Kept(model=model, canonical=canonical, package=package, key_id=answer.key_id))

    def on_model_alias_discovered(self, alias: str, model_id: str) -> None:
        """The provider has another name for the model.

        No right follows: its packages are decided separately.
        """
        self._instances.stands_for(alias, model_id)

    def on_model_dependency_discovered(
        self, base_model_id: str, base_model_package_id: str | None, dependent_model_id: str
    ) -> None:
        """The model needs another one. That one is loaded with the same key, and decided then."""

    def on_model_access_forbidden(self, model_id: str, api_key: str | None) -> None:
        """The provider, or one of these hooks, refused the model. Our refusals are already recorded."""

    def on_file_created(self, file_path: str, access_identifiers: AccessIdentifiers) -> None:
        """Ignored: files are the engine's, and access to them is decided elsewhere."""

    def on_file_renamed(self, old_path: str, new_path: str, access_identifiers: AccessIdentifiers) -> None:
        """Ignored."""

    def on_symlink_created(
        self, target_path: str, link_name: str, access_identifiers: AccessIdentifiers
    ) -> None:
        """Ignored."""

    def on_symlink_deleted(self, link_name: str) -> None:
        """Ignored."""

    def on_file_deleted(self, file_path: str) -> None:
        """Ignored."""

    def on_directory_deleted(self, dir_path: str) -> None:
        """Ignored."""

    def _ask_about_model(self, hook: str, raw_model: str, raw_key: str | None) -> Granted | Declined:
        """Decide the action on the whole model; where grants may name single packages, decide `discover`."""
        answer = self._ask(hook, raw_model, None, raw_key, self._action)
        if isinstance(answer, Granted) or answer.reason is not Reason.MISSING_ACTION:
            return answer
        narrowed = self._ask(hook, raw_model, None, raw_key, Action.DISCOVER)
        return narrowed if isinstance(narrowed, Granted) else answer

    def _ask_about_package(self, hook: str, what: AccessIdentifiers) -> Granted | Declined:
        return self._ask(hook, what.model_id, what.package_id, what.api_key, self._action)

    def _ask(
        self, hook: str, raw_model: str, raw_package: str | None, raw_key: str | None, action: Action
    ) -> Granted | Declined:
        question = HookRequest(
            hook=hook,
            action=action,
            raw_model=raw_model,
            raw_package=raw_package,
            raw_key=raw_key,
            client=self._client,
        )
        try:
            return self._process.ask(question)
        except Unavailable as failure:
            raise self._errors.refusal(failure.reason) from failure


class _Load(threading.local):
    """The state of one thread's load: the first denial of a package, and whether one was granted."""

    is_granted = False
    denied: Reason | None = None

    def begin(self) -> None:
        self.is_granted, self.denied = False, None
