from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs

import pytest

from gateway.model.access import Credential
from gateway.model.errors import Reason, Unavailable
from gateway.model.names import ModelId
from gateway.platform.stat import Platform

pytestmark = pytest.mark.anyio

KEY, CARS = Credential("a-platform-key"), ModelId("acme/cars & co/1")


@dataclass(frozen=True)
class ProviderAnswer:
    status: int
    body: bytes = b'{"modelMetadata":{"modelArchitecture":"resnet","taskType":"classification"}}'


class Asked:
    """A provider that returns a given answer, and keeps the requests."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.questions = []
        self.were_strangers = []

    async def ask(self, path, query, headers, *, seconds, is_unknown_key):
        self.questions.append((path, query, dict(headers), seconds))
        self.were_strangers.append(is_unknown_key)
        return self.answers.pop(0)


async def say(answer, model=CARS):
    return await Platform(provider=Asked(answer)).ask(KEY, model)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (200, Reason.PERMITTED),
        (401, Reason.UPSTREAM_UNAUTHORIZED),
        (402, Reason.PAYMENT_REQUIRED),
        (403, Reason.UPSTREAM_REFUSED),
        (404, Reason.UPSTREAM_REFUSED),
        (423, Reason.USAGE_PAUSED),
    ],
)
async def test_each_status_means_one_thing(status, reason):
    assert await say(ProviderAnswer(status)) is reason


@pytest.mark.parametrize("status", [201, 204, 206, 400, 405, 410, 418, 422])
async def test_a_status_that_means_nothing_here_is_undecided(status):
    with pytest.raises(Unavailable):
        await say(ProviderAnswer(status))


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"OK", b"<html>", b"[]", b"null", b"true", b'{"a":', b"\xff", b"{}"),
        b'{"error":"session expired, please sign in"}',
        b'{"modelMetadata":null}',
        b'{"modelMetadata":{}}',
        b'{"modelMetadata":{"modelArchitecture":"resnet"}}',
        b'{"modelMetadata":{"modelArchitecture":"resnet","taskType":null}}',
        b'{"modelMetadata":{"modelArchitecture":1,"taskType":"t"}}',
        b'{"modelMetadata":{"modelArchitecture":"resnet","taskType":"t"},"error":"no"}',
    ],
)
async def test_what_is_no_answer_of_stat_is_no_allow(body):
    with pytest.raises(Unavailable) as caught:
        await say(ProviderAnswer(200, body))
    assert caught.value.reason is Reason.UPSTREAM_UNDECIDED


@pytest.mark.parametrize("status", [200, 403, 404])
async def test_a_key_is_known_to_whoever_looks_for_a_model_with_it(status):
    assert await say(ProviderAnswer(status), None) is Reason.PERMITTED


async def test_the_question_names_the_model_and_carries_the_key_in_its_header_alone():
    asked = Asked(ProviderAnswer(200))
    await Platform(provider=asked).ask(KEY, CARS)
    [(path, query, headers, seconds)] = asked.questions
    assert path == "/models/v1/external/stat"
    assert parse_qs(query) == {"modelId": [CARS]}
    assert headers[b"authorization"] == b"Bearer a-platform-key"
    assert seconds < 4


async def test_a_question_about_no_model_names_one_that_cannot_exist_and_never_the_same():
    asked = Asked(ProviderAnswer(404), ProviderAnswer(404))
    platform = Platform(provider=asked)
    for _ in range(2):
        await platform.ask(KEY, None)
    assert len({query for _, query, *_ in asked.questions}) == 2


@pytest.mark.parametrize("is_unknown_key", [False, True])
async def test_the_provider_is_told_whether_the_key_is_known_here(is_unknown_key):
    asked = Asked(ProviderAnswer(401))
    await Platform(provider=asked).ask(KEY, CARS, is_unknown_key=is_unknown_key)
    assert asked.were_strangers == [is_unknown_key]
