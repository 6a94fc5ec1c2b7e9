from __future__ import annotations

import dataclasses
from collections import Counter

from gateway.adapters.clock import SystemClock
from gateway.operations.cache.survey import CacheSurvey
from gateway.operations.doctor.cache import (
    check_cache,
    judge_ambiguous,
    judge_links,
    judge_manifests,
    judge_old,
    judge_resolutions,
    judge_scan,
)
from gateway.operations.doctor.findings import Level
from gateway.resource.scan import Skipped, Survey


def test_a_cache_as_the_engine_left_it_fails_nowhere(installed):
    found = check_cache(installed.settings, (), SystemClock())
    assert Level.FAIL not in {one.health for one in found}
    assert len({one.name for one in found}) == len(found) == 8


def test_a_cache_that_is_not_there_is_a_failure(installed, tmp_path):
    settings = dataclasses.replace(installed.settings, cache_root=tmp_path / "missing")
    assert [one.health for one in check_cache(settings, (), SystemClock())] == [Level.FAIL]


def test_a_link_in_the_place_of_models_cache_is_a_failure_and_does_not_stop_the_rest(installed, tmp_path):
    (tmp_path / "models-cache").symlink_to("/etc")
    found = check_cache(dataclasses.replace(installed.settings, cache_root=tmp_path), (), SystemClock())
    assert {one.health for one in found} == {Level.FAIL}


def test_a_cache_that_cannot_be_listed_is_a_failure():
    assert judge_scan(Survey(is_root_present=True, problem="not readable")).health is Level.FAIL


def test_packages_that_are_not_as_the_engine_leaves_them_are_a_warning():
    survey = Survey(
        is_root_present=True,
        is_readable=True,
        unservable_packages=1,
        skipped=(Skipped(where="v2-x/p1", why="a link"),),
    )
    found = judge_scan(survey)
    assert found.health is Level.WARNING
    assert "v2-x/p1: a link" in found.found


def test_files_whose_handle_is_too_long_are_a_warning_that_says_what_is_served():
    survey = Survey(
        is_root_present=True,
        is_readable=True,
        unservable_files=2,
        skipped=(Skipped(where="v2-x/p1", why="2 of its files"),),
    )
    found = judge_scan(survey)
    assert found.health is Level.WARNING
    assert "v2-x/p1: 2 of its files" in found.found


def test_manifests_of_another_user_are_a_failure_that_says_whom_to_run_as():
    found = judge_manifests(Survey(unreadable_manifests=2), CacheSurvey(manifest_owners={"engine"}))
    assert found.health is Level.FAIL
    assert "run the gateway as engine" in found.advice


def test_links_below_an_unknown_root_are_a_warning_that_names_it():
    seen = CacheSurvey(link_roots=Counter({"/cache": 5, "/data": 2}))
    found = judge_links(seen, ("/cache",))
    assert found.health is Level.WARNING
    assert "2 below /data" in found.found
    assert judge_links(seen, ("/cache", "/data")).health is Level.OK


def test_what_is_left_over_is_a_warning_and_nothing_is_ok():
    assert judge_old(CacheSurvey(old_directories={"acme-1-31d2d451"})).health is Level.WARNING
    assert judge_ambiguous(CacheSurvey(ambiguous_packages={"v/P", "v/p"})).health is Level.WARNING
    assert judge_resolutions(1).health is Level.WARNING
    nothing = (judge_old(CacheSurvey()), judge_ambiguous(CacheSurvey()), judge_resolutions(0))
    assert {one.health for one in nothing} == {Level.OK}
