"""The guard in a process: decided and recorded, and no allow that cannot be justified."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from gateway.adapters.clock import SystemClock
from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.audit import verify
from gateway.demo.world import build_world, demo_settings
from gateway.identity.signing_keys import load_signing_keys
from gateway.inprocess.hook_request import HookRequest
from gateway.inprocess.process import Granted, GuardedProcess
from gateway.model.access import Action
from gateway.model.errors import Misconfigured, Reason, Unavailable
from gateway.model.names import TenantId
from gateway.model.verdicts import Declined
from gateway.operations.session import open_session
from tests.forged_tokens import CASES, Forge

CARS = "acme/cars/1"


def question(key, model=CARS, package=None, action=Action.INFER, **more):
    return HookRequest(hook="load", action=action, raw_model=model, raw_package=package, raw_key=key, **more)


def test_the_owner_is_granted_and_that_is_on_record_before_the_answer(installed, process):
    answer = process.ask(question(installed.token("acme")))
    assert isinstance(answer, Granted)
    assert (answer.key_id, answer.model) == (installed.world.keys["acme"].key_id, CARS)
    record = installed.record(answer.record_id)
    assert (record["decision"], record["action"], record["tenant"]) == ("allow", "infer", "acme")
    assert record["request"]["route"] == "in-process/load"
    [outcome] = [one for one in installed.records() if one.get("decision_id") == answer.record_id]
    assert outcome["ending"] == "complete"


def test_an_alias_is_granted_as_the_model_that_it_stands_for(installed, process):
    assert process.ask(question(installed.token("acme"), "acme/latest")).model == CARS


def test_a_permitted_model_need_not_be_in_the_cache(installed, process):
    assert isinstance(process.ask(question(installed.token("acme"), "acme/new/1")), Granted)
    assert isinstance(process.ask(question(installed.token("acme"), "acme/new/1", "pkgX")), Granted)


@pytest.mark.parametrize(
    ("key", "model", "reason"),
    [
        ("acme", "globex/cars/1", Reason.NOT_PERMITTED),
        ("acme", "nobodys/1", Reason.NOT_PERMITTED),
        ("initech", CARS, Reason.NOT_PERMITTED),
        ("acme-catalogue", CARS, Reason.MISSING_SCOPE),
        ("acme-revoked", CARS, Reason.REVOKED_KEY),
        ("acme-expired", CARS, Reason.EXPIRED_KEY),
        (None, "public/demo/1", Reason.NO_CREDENTIAL),
        ("acme", "../cars", Reason.MALFORMED_PATH),
    ],
)
def test_a_denial_is_on_record_with_its_reason(installed, process, key, model, reason):
    answer = process.ask(question(installed.token(key) if key else None, model))
    assert isinstance(answer, Declined)
    assert answer.reason is reason
    assert installed.record(answer.record_id)["reason"] == reason.value


def test_a_key_that_is_revoked_is_refused_from_then_on(installed, process):
    token, key_id = installed.new_key("acme")
    assert isinstance(process.ask(question(token)), Granted)
    installed.revoke(key_id)
    assert process.ask(question(token)).reason is Reason.REVOKED_KEY


def test_many_threads_may_ask_at_once(installed, process):
    asked = [question(installed.token("acme"), f"acme/many/{number}") for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(process.ask, asked))
    assert {answer.model for answer in answers} == {one.raw_model for one in asked}
    assert len({answer.record_id for answer in answers}) == len(asked)


@contextmanager
def settings_of_its_own(**more):
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))
    try:
        yield dataclasses.replace(demo_settings(folder), **more)
    finally:
        shutil.rmtree(folder)


def test_a_closed_process_answers_nothing_and_leaves_a_whole_chain():
    with settings_of_its_own() as settings:
        world = asyncio.run(build_world(settings))
        with GuardedProcess(settings) as process:
            process.ask(question(world.keys["acme"].token))
        with pytest.raises(Unavailable):
            process.ask(question(world.keys["acme"].token))
        report = verify(settings.audit_folder)
        assert report.is_intact
        assert report.unproven == 0
        process.close()  # once more does nothing


async def find_tenant(settings, tenant):
    async with open_session(settings) as session:
        return await session.listing.find_tenant(tenant)


def test_a_token_is_granted_what_its_key_is_and_a_forged_one_nothing():
    with settings_of_its_own(public_url="https://models.example") as settings:
        world = asyncio.run(build_world(settings))
        acme = asyncio.run(find_tenant(settings, TenantId("acme")))
        [signing] = load_signing_keys(settings.token_key_folder)
        forge = Forge(
            private=signing.private,
            kid=signing.kid,
            url="https://models.example",
            key_id=world.keys["acme"].key_id,
            tenant="acme",
            tenant_record=acme.record_id,
            now=int(SystemClock().now()),
        )
        with GuardedProcess(settings) as process:
            answer = process.ask(question(forge.good(scope='"infer"')))
            assert isinstance(answer, Granted)
            assert answer.key_id == world.keys["acme"].key_id
            for case in CASES:
                assert isinstance(process.ask(question(forge.make(case))), Declined), case["name"]


def test_without_redis_nothing_is_granted():
    with settings_of_its_own() as settings, EmbeddedValkey(settings.state.parent / "v").running() as url:
        settings = dataclasses.replace(settings, redis_url=url, lease_milliseconds=200)  # noqa: PLW2901
        world = asyncio.run(build_world(settings))
        with GuardedProcess(settings) as process:
            asked = question(world.keys["acme"].token)
            assert isinstance(process.ask(asked), Granted)
            with redis.Redis.from_url(url) as client:
                server = int(client.info("server")["process_id"])
            os.kill(server, signal.SIGSTOP)
            try:
                time.sleep(0.5)  # until then it may be answered from memory: the lease allows it
                answer = _answer(process, asked)
            finally:
                os.kill(server, signal.SIGCONT)
        assert answer in {Reason.NO_LEASE, Reason.NO_FACTS}


def test_without_an_audit_log_nothing_is_granted():
    with settings_of_its_own() as settings:
        world = asyncio.run(build_world(settings))
        with GuardedProcess(settings) as process:
            asked = question(world.keys["acme"].token)
            process.ask(asked)
            kept = settings.audit_folder.rename(settings.state / "away")
            settings.audit_folder.touch()  # a file, so that no new folder can be made there
            with pytest.raises(Unavailable) as failure:
                process.ask(asked)
            assert failure.value.reason is Reason.NO_AUDIT
            settings.audit_folder.unlink()
            kept.rename(settings.audit_folder)


def _answer(process, asked):
    try:
        answer = process.ask(asked)
    except Unavailable as failure:
        return failure.reason
    assert isinstance(answer, Declined)
    return answer.reason


def test_a_forked_child_is_told_that_it_has_no_guard(installed, process):
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this test is about forking beside threads
        child = os.fork()
    if child == 0:
        try:
            process.ask(question(installed.token("acme")))
        except Unavailable:
            os.write(writing, b"refused")
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"refused"
    os.close(reading)


def test_what_stands_in_the_way_of_a_start_is_raised_there(tmp_path):
    settings = dataclasses.replace(demo_settings(tmp_path), state=tmp_path / "nothing")
    with pytest.raises(Misconfigured):
        GuardedProcess(settings).start()
    assert "cachegate" not in {thread.name for thread in threading.enumerate() if not thread.is_alive()}


def test_it_is_started_once(process):
    with pytest.raises(Misconfigured):
        process.start()


def test_nothing_of_it_imports_the_engine_or_torch():
    script = (
        "import sys, gateway.inprocess.loading, gateway.inprocess.access_manager\n"
        "assert not {'torch', 'inference_models'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
