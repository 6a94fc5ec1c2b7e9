"""Checks OCSF events against the schema of their class, with the profiles that they name."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from ocsf_json_schema import OcsfJsonSchemaEmbedded


def finding_of(event: dict[str, Any]) -> str | None:
    """What is wrong with an event; None if nothing."""
    metadata = event["metadata"]
    profiles = tuple(metadata.get("profiles", ()))
    error = next(_validator(metadata["version"], event["class_uid"], profiles).iter_errors(event), None)
    return None if error is None else f"{event['class_name']}: {error.json_path}: {error.message}"


@cache
def _validator(version: str, class_uid: int, profiles: tuple[str, ...]) -> Draft202012Validator:
    from jsonschema import Draft202012Validator  # noqa: PLC0415 -- most tests need neither

    schemas = _schemas(version)
    name = schemas.lookup_class_name_from_uid(class_uid)
    return Draft202012Validator(schemas.get_class_schema(name, list(profiles)))


@cache
def _schemas(version: str) -> OcsfJsonSchemaEmbedded:
    from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema  # noqa: PLC0415

    return OcsfJsonSchemaEmbedded(get_ocsf_schema(version))
