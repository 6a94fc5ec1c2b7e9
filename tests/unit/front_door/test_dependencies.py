from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from gateway.front_door.dependencies import REMEMBERED_SECONDS, Dependencies
from gateway.model.errors import Unavailable

pytestmark = pytest.mark.anyio


class Provider:
    """Answers each question with what a test put there, and notes the questions."""

    def __init__(self):
        self.answer = 200, b"{}"
        self.questions = []

    async def ask(self, path, query, headers):
        self.questions.append((path, query, dict(headers)))
        return SimpleNamespace(status=self.answer[0], body=self.answer[1])


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def dependencies(provider, clock):
    return Dependencies(provider, clock)


def said(model, *dependencies):
    listed = [{"type": "model-dependency-v1", "name": "x", "modelId": one} for one in dependencies]
    return 200, json.dumps({"modelMetadata": {"modelId": model, "modelDependencies": listed}}).encode()


async def test_the_name_behind_a_model_and_its_dependencies_are_brought(dependencies, provider):
    provider.answer = said("acme/1", "acme/2", "globex/1")
    assert await dependencies.find("alias", "key-1") == ("acme/1", "acme/2", "globex/1")
    [(_, query, headers)] = provider.questions
    assert (query, headers) == ("modelId=alias", {b"authorization": b"Bearer key-1"})


async def test_an_answer_counts_for_one_key_and_a_while(dependencies, provider, clock):
    provider.answer = said("acme/1")
    await dependencies.find("acme/1", "key-1")
    await dependencies.find("acme/1", "key-1")
    assert len(provider.questions) == 1
    await dependencies.find("acme/1", "key-2")
    assert len(provider.questions) == 2
    clock.now = REMEMBERED_SECONDS
    provider.answer = said("acme/1", "globex/1")
    assert await dependencies.find("acme/1", "key-1") == ("globex/1",)


@pytest.mark.parametrize("status", [401, 402, 403, 404, 423])
async def test_what_is_refused_to_the_key_brings_nothing(dependencies, provider, status):
    provider.answer = status, b"no"
    assert await dependencies.find("acme/1", "key-1") == ()


@pytest.mark.parametrize(
    "answer",
    [
        *((500, b""), (200, b""), (200, b"{}"), (200, b'{"modelMetadata":[]}')),
        (200, b'{"modelMetadata":{"modelDependencies":[{}]}}'),
        (200, b'{"modelMetadata":{"modelDependencies":[{"modelId":"../x"}]}}'),
    ],
)
async def test_an_answer_without_sense_brings_no_guess(dependencies, provider, answer):
    provider.answer = answer
    with pytest.raises(Unavailable):
        await dependencies.find("acme/1", "key-1")
    with pytest.raises(Unavailable):
        await dependencies.find("acme/1", "key-1")
