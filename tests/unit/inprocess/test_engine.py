"""What is imported from the engine: each reason has its exception, and changed hooks stop the start."""

from __future__ import annotations

import importlib.util

import pytest

from gateway.inprocess.access_manager import CachegateAccessManager
from gateway.inprocess.engine import load_engine_errors, status_of, verify_arguments, verify_hooks
from gateway.model.errors import Misconfigured, Reason
from gateway.problems import PROBLEMS

HOOKS = (
    "on_model_access_forbidden",
    "on_model_package_access_granted",
    "on_file_created",
    "on_file_renamed",
    "on_symlink_created",
    "on_symlink_deleted",
    "on_file_deleted",
    "on_directory_deleted",
    "is_model_access_forbidden",
    "is_model_package_access_granted",
    "retrieve_model_instance",
    "on_model_loaded",
    "on_model_alias_discovered",
    "on_model_dependency_discovered",
)


@pytest.mark.parametrize("reason", sorted(PROBLEMS))
def test_every_reason_has_one_of_the_engines_exceptions(errors, reason):
    assert status_of(reason) in {401, 402, 403, 404, 423, 503}
    assert isinstance(errors.refusal(reason), Exception)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.NO_CREDENTIAL, "unauthorized"),
        (Reason.MALFORMED_CREDENTIAL, "unauthorized"),
        (Reason.REVOKED_KEY, "unauthorized"),
        (Reason.NOT_PERMITTED, "not_found"),
        (Reason.MALFORMED_PATH, "not_found"),
        (Reason.POLICY_ERROR, "not_found"),
        (Reason.MISSING_SCOPE, "forbidden"),
        (Reason.NO_LEASE, "undecided"),
        (Reason.INTERNAL, "undecided"),
    ],
)
def test_a_reason_is_raised_as_the_network_would_have_it(errors, reason, kind):
    assert type(errors.refusal(reason)) is getattr(errors, kind)


def test_not_yours_not_there_and_no_name_read_the_same(errors):
    reasons = (Reason.NOT_PERMITTED, Reason.ABSENT, Reason.MALFORMED_PATH, Reason.UNREADABLE_FACT)
    assert len({str(errors.refusal(reason)) for reason in reasons}) == 1


def test_every_hook_of_today_is_answered():
    verify_hooks(CachegateAccessManager, HOOKS)


def test_a_hook_that_nobody_answers_stops_the_start():
    with pytest.raises(Misconfigured, match="is_anything_else_forbidden"):
        verify_hooks(CachegateAccessManager, [*HOOKS, "is_anything_else_forbidden"])


def test_an_argument_that_the_engine_would_swallow_stops_the_start():
    def load(model_id, *, verify_hash_while_download=True, **kwargs):
        return model_id, verify_hash_while_download, kwargs

    verify_arguments(load, ["verify_hash_while_download"])
    with pytest.raises(Misconfigured, match="allow_direct_local_storage_loading"):
        verify_arguments(load, ["allow_direct_local_storage_loading"])


@pytest.mark.skipif(importlib.util.find_spec("inference_models") is not None, reason="the engine is here")
def test_without_the_engine_it_is_said_how_to_get_it():
    with pytest.raises(Misconfigured, match="is not installed"):
        load_engine_errors()
