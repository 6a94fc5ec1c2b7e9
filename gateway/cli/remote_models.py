"""What `cachegate models` shows through a running gateway: the rules, and what it has on its disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.adapters.admin_client import PAGE
from gateway.operations.listings import AliasView, ModelsView, ModelView, RuleView

if TYPE_CHECKING:
    from gateway.adapters.admin_client import AdminClient
    from gateway.model.names import ModelId


def list_models(gateway: AdminClient) -> ModelsView:
    """All rules and aliases, and all models on the gateway's disk."""
    rules = msgspec.convert([*gateway.each("/model-rules")], type=list[RuleView])
    aliases = msgspec.convert([*gateway.each("/aliases")], type=list[AliasView])
    page = gateway.get("/models", limit=str(PAGE))
    told: dict[str, Any] = {name: page[name] for name in ("cache_root", "problem", "skipped")}
    on_disk = [*page["items"]]
    while page["after"] is not None:
        page = gateway.get("/models", limit=str(PAGE), after=page["after"])
        on_disk += page["items"]
    return msgspec.convert({**told, "rules": rules, "aliases": aliases, "on_disk": on_disk}, type=ModelsView)


def find_model(gateway: AdminClient, asked: ModelId) -> ModelView:
    """One model, by any of its names."""
    return msgspec.convert(gateway.get("/model", model=asked), type=ModelView)
