from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from gateway.front_door.answers import (
    MAX_ERROR_BYTES,
    MAX_LIST_BYTES,
    MAX_LISTED_MODELS,
    error_answer,
    health_answer,
    info_answer,
    is_json,
    keep_models,
    name_image,
    pass_headers,
    verify_reported,
)
from gateway.front_door.values import InferenceRequest, Matched, ServerRoute
from gateway.model.errors import Reason, Refusal
from gateway.model.names import ModelId

KEY, RECORD = "rf_Service-Key0123", "01234567-89ab-7def-8123-456789abcdef"
CARS = ModelId("acme/cars-9")


def inquiry(*models, document=None, reported=()):
    return InferenceRequest(
        matched=Matched(route=ServerRoute(method="POST", path="/infer/classification"), values={}),
        credential=None,
        models=models or (CARS,),
        reported=frozenset(reported or models or {CARS}),
        images=(),
        query=(),
        document=document,
    )


def told(status, message, **more):
    body = message if isinstance(message, bytes) else json.dumps({"message": message}).encode()
    answer = error_answer(status, body, inquiry(**more), [KEY, "our-image-id-77"], record=RECORD)
    assert dict(answer.headers.pairs)[b"content-length"] == b"%d" % len(answer.body)
    problem = json.loads(answer.body)
    assert (problem["status"], problem["record"]) == (answer.status, RECORD)
    assert set(problem) == {"type", "title", "status", "detail", "record"}
    return answer.status, problem["detail"]


class TestForm:
    @pytest.mark.parametrize(
        ("content_type", "answer"),
        [
            (b"application/json", True),
            (b"Application/JSON; charset=UTF-8", True),
            (b"image/jpeg", False),
            (b"text/plain; charset=latin-1", False),
            (None, False),
        ],
    )
    def test_json_is_told_by_its_type(self, content_type, answer):
        pairs = [] if content_type is None else [(b"content-type", content_type)]
        assert is_json(pass_headers(pairs)) is answer

    @pytest.mark.parametrize(
        "pairs",
        [
            [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")],
            [(b"content-type", b"image/jpeg"), (b"content-encoding", b"br")],
            [(b"content-type", b"application/json; charset=utf-16")],
            [(b"content-type", b"application/json; charset=utf-8; charset=utf-7")],
        ],
    )
    def test_what_could_not_be_read_is_refused(self, pairs):
        with pytest.raises(Refusal) as refusal:
            is_json(pass_headers(pairs))
        assert refusal.value.reason is Reason.INFERENCE_UNAVAILABLE


class TestHeaders:
    def test_only_those_of_the_list_pass_and_ours_are_added(self):
        told_of_others = [
            *(
                (b"X-Model-Cold-Start", b"true"),
                (b"x-model-load-time", b"1.5"),
                (b"x-model-load-details", b"[]"),
            ),
            *((b"Set-Cookie", b"a=b"), (b"Server", b"uvicorn"), (b"Access-Control-Allow-Origin", b"*")),
            *(
                (b"Location", b"http://10.0.0.1/"),
                (b"Connection", b"close"),
                (b"Transfer-Encoding", b"chunked"),
            ),
            *(
                (b"x-request-id", b"1"),
                (b"cachegate-record", b"forged"),
                (b"Vary", b"Origin"),
                (b"etag", b"1"),
            ),
        ]
        passed = [
            (b"Content-Type", b"application/json"),
            (b"Content-Length", b"2"),
            (b"X-Model-Id", b"acme/1"),
        ]
        assert pass_headers([*told_of_others, *passed]).pairs == (
            (b"content-type", b"application/json"),
            (b"content-length", b"2"),
            (b"x-model-id", b"acme/1"),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        )

    @pytest.mark.parametrize(
        ("value", "passed"),
        [
            (b"image/jpeg", b"image/jpeg"),
            (b"Application/JSON; charset=utf-8", b"Application/JSON; charset=utf-8"),
            (b"text/html", b"application/octet-stream"),
            (b"image/svg+xml", b"application/octet-stream"),
            (b"application/json,text/html", b"application/octet-stream"),
            (b"", b"application/octet-stream"),
        ],
    )
    def test_a_content_type_that_a_browser_could_run_is_replaced(self, value, passed):
        assert dict(pass_headers([(b"content-type", value)]).pairs)[b"content-type"] == passed

    @pytest.mark.parametrize("value", [b"1\r\nx: y", b"1\n", b"a\0b", b"\x7f", b"x" * 9000])
    def test_a_value_that_is_none_is_left_out(self, value):
        assert b"x-model-id" not in dict(pass_headers([(b"x-model-id", value + b"z")]).pairs)

    def test_the_first_of_several_passes_and_a_length_is_a_number(self):
        pairs = [(b"content-length", b"-1"), (b"content-length", b"5"), (b"Content-Length", b"6")]
        assert dict(pass_headers(pairs).pairs)[b"content-length"] == b"5"


class TestReported:
    @pytest.mark.parametrize(
        "values", [[], [b""], [b"acme/cars-9"], [b"acme/cars-9,b"], [b" b , acme/cars-9 ", b"b"]]
    )
    def test_what_was_authorised_may_be_reported(self, values):
        verify_reported(values, inquiry(CARS, reported=[CARS, "b"]))

    @pytest.mark.parametrize(
        "values",
        [
            [b"other"],
            [b"acme/cars-9,other"],
            [b"acme/cars-9", b"other"],
            [b"ACME/cars-9"],
            [b"acme/cars-9/x"],
            [b"\xff"],
        ],
    )
    def test_another_model_is_refused(self, values):
        with pytest.raises(Refusal) as refused:
            verify_reported(values, inquiry(CARS))
        assert refused.value.reason is Reason.UNEXPECTED_MODEL


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "ours"),
        [
            *((400, 400), (404, 404), (413, 413), (415, 415), (422, 422), (429, 429), (501, 501)),
            *((401, 403), (402, 403), (403, 403), (407, 502), (410, 502), (418, 502), (451, 502)),
            *((500, 502), (502, 503), (503, 503), (504, 503), (408, 503), (599, 502), (999, 502)),
        ],
    )
    def test_a_mistake_of_the_client_keeps_its_status_and_others_are_ours(self, status, ours):
        assert told(status, "x")[0] == ours

    @pytest.mark.parametrize("status", [401, 402, 403, 408, 502, 503, 504])
    def test_why_a_key_or_the_server_failed_is_not_said(self, status):
        assert "It says" not in told(status, "Invalid request.")[1]

    def test_a_message_of_harmless_words_passes(self):
        message = "Could not load input image. Cause: invalid base64 (2 bytes)."
        assert told(400, message)[1].endswith(f"It says: {message}")

    def test_the_model_that_the_request_names_passes_and_no_other(self):
        message = (
            "The model 'acme/cars-9' is not supported, unlike the model 'globex/vans-1' or acme/cars-90."
        )
        detail = told(400, message, document={"model_id": CARS})[1]
        assert "'acme/cars-9' is not supported" in detail
        assert "globex" not in detail
        assert "cars-90" not in detail

    def test_a_validation_error_is_told_by_place_and_message_without_its_input(self):
        mistake = {
            "type": "missing",
            "loc": ["body", "image"],
            "msg": "Field required",
            "input": {"api_key": KEY},
        }
        body = json.dumps({"detail": [mistake]}).encode()
        detail = told(422, body, document={"image": 1})[1]
        assert detail.endswith("It says: body image: Field required")

    def test_an_id_that_needs_escapes_is_escaped(self):
        odd = ModelId('acme/"x"\u00e9')
        answer = error_answer(
            400, json.dumps({"message": f"the model {odd} is not found"}).encode(), inquiry(odd), []
        )
        assert odd in json.loads(answer.body)["detail"]

    @pytest.mark.parametrize(
        "hidden",
        [
            KEY,
            KEY.upper(),
            KEY.swapcase(),
            base64.b64encode(KEY.encode()).decode(),
            base64.urlsafe_b64encode(b"x" + KEY.encode()).decode(),
            base64.b32encode(KEY.encode()).decode(),
            KEY.encode().hex(),
            quote(KEY, safe=""),
            "".join(f"%{byte:02x}" for byte in KEY.encode()),
            "".join(f"\\u{ord(letter):04x}" for letter in KEY),
            "".join(f"&#{ord(letter)};" for letter in KEY),
            " ".join(str(byte) for byte in KEY.encode()),
            " ".join(KEY),
            "-".join(KEY),
            KEY[::-1],
            f"https://storage.example/x?X-Goog-Signature={KEY}",
            f"{KEY[:9]}\n{KEY[9:]}",
            f"/tmp/cache/{CARS}/weights.onnx",
            "globex/vans-1",
            "10.0.0.7:9001",
            "<_io.BytesIO object at 0x7f00deadbeef>",
            "\x1b[31mred\x07",
            "our-image-id-77",
        ],
    )
    def test_nothing_of_a_secret_passes_in_any_form(self, hidden):
        detail = told(400, f"The model could not be loaded with the key {hidden}.")[1]
        after = detail.partition("It says: ")[2].replace("[...]", "")
        harmless = {"The", "model", "could", "not", "be", "loaded", "with", "the", "key", ".", "object", "at"}
        assert not set(after.split()) - harmless
        assert KEY.lower() not in detail.lower()

    def test_a_key_of_harmless_words_drops_the_message(self):
        body = json.dumps({"message": "The model is not loaded: local server key refused"}).encode()
        for key in ("local", "localserver", "server-key"):
            detail = json.loads(error_answer(400, body, inquiry(), [key]).body)["detail"]
            assert "It says" not in detail

    def test_a_body_of_escapes_is_read_before_it_is_searched(self):
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in "local")
        body = f'{{"message":"the {escaped} model is not found"}}'.encode()
        assert "It says" not in json.loads(error_answer(400, body, inquiry(), ["local"]).body)["detail"]

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"Internal Server Error",
            b"\xff\xfe{",
            b"[" * 60_000,
            b'{"message":' * 5_000,
            b'"message"',
            b'{"message":7}',
            b'{"detail":[]}',
            b'{"detail":[7]}',
            b'{"detail":[{"msg":7}]}',
            b'{"message":"\\ud800"}',
            json.dumps({"message": "a " * (MAX_ERROR_BYTES // 2)}).encode(),
            json.dumps({"message": "a " * 2100}).encode(),
            json.dumps({"message": "image", "more": "x" * MAX_ERROR_BYTES}).encode(),
            json.dumps({"message": "globex/1 acme/2 acme/3 not"}).encode(),
        ],
    )
    def test_a_message_that_cannot_be_had_is_left_out(self, body):
        assert "It says" not in told(400, body)[1]

    def test_a_message_is_bounded(self):
        assert len(told(400, "image " * 300)[1]) < 450

    def test_a_key_that_shows_only_once_other_words_are_out_drops_the_message(self):
        body = json.dumps({"message": "The server x9-z model is not loaded"}).encode()
        assert "It says" in json.loads(error_answer(400, body, inquiry(), [KEY]).body)["detail"]
        detail = json.loads(error_answer(400, body, inquiry(), ["servermodel"]).body)["detail"]
        assert "It says" not in detail

    @pytest.mark.parametrize("odd", ["image(((((!", "1234567890", "10.0.0.7:9001", "x<script>"])
    def test_what_is_neither_a_word_nor_a_name_of_a_member_is_left_out(self, odd):
        fields = {"10.0.0.7:9001": 1, "x<script>": 1, "class_agnostic_nms": 1}
        detail = told(400, f"The field {odd} class_agnostic_nms is not valid", document=fields)[1]
        assert detail.endswith("It says: The field [...] class_agnostic_nms is not valid")

    def test_letters_of_two_sizes_spell_nothing(self):
        assert "iMaGe" not in told(400, "The input iMaGe is not valid here")[1]


class TestLists:
    pytestmark = pytest.mark.anyio

    async def kept(self, *bodies, mine=("acme/cars-9", "pub/1")):
        asked = []

        async def may_infer(model):
            asked.append(model)
            return model in mine

        answer = await keep_models([json.dumps(body).encode() for body in bodies], may_infer)
        assert len(asked) == len(set(asked))
        return json.loads(answer.body)

    def entry(self, model_id, **more):
        blank = {"task_type": "classification", "batch_size": 1, "input_height": 8, "input_width": 8}
        return {"model_id": model_id, **blank, **more}

    async def test_only_models_that_the_caller_may_infer_stay_and_what_tells_of_others_is_blank(self):
        telling = {
            "vram_bytes": 7,
            "request_aliases": ["x"],
            "request_paths": ["/globex/workflows/w"],
            "new": 1,
        }
        document = {
            "models": [self.entry("globex/1", **telling), self.entry("acme/cars-9", **telling)],
            "gpu_memory_used": 7,
            "total_vram_bytes": 9,
            "new": 1,
        }
        kept = await self.kept(document)
        blank = {"vram_bytes": None, "request_aliases": [], "request_paths": []}
        assert kept["models"] == [self.entry("acme/cars-9", **blank)]
        assert {value for name, value in kept.items() if name != "models"} == {None}
        assert "new" not in kept

    async def test_lists_of_several_servers_become_one_without_duplicates(self):
        one, other = (
            {"models": list(map(self.entry, ids))} for ids in (["pub/1", "acme/cars-9"], ["pub/1", "x"])
        )
        kept = await self.kept(one, other)
        assert [each["model_id"] for each in kept["models"]] == ["acme/cars-9", "pub/1"]

    async def test_no_server_and_an_empty_list_are_an_empty_list(self):
        assert (await self.kept())["models"] == (await self.kept({"models": []}))["models"] == []

    @pytest.mark.parametrize("name", ["", "../x", "a//b", "a\n", "acme/*", "x" * 600])
    async def test_what_is_no_id_is_left_out_and_not_decided(self, name):
        assert (await self.kept({"models": [self.entry(name)]}, mine=(name,)))["models"] == []

    @pytest.mark.parametrize(
        "body",
        [
            *(
                b"",
                b"[]",
                b"{}",
                b'{"models":7}',
                b'{"models":[7]}',
                b'{"models":[{}]}',
                b"[" * 9000,
                b"\xff",
            ),
            b'{"models":[{"model_id":7}]}',
            b'{"models":[]}' + b" " * MAX_LIST_BYTES,
            json.dumps({"models": [{"model_id": str(n)} for n in range(MAX_LISTED_MODELS + 1)]}).encode(),
        ],
    )
    async def test_a_list_that_does_not_parse_or_is_too_long_is_no_answer(self, body):
        async def may_infer(model):
            return True

        with pytest.raises(Refusal) as refused:
            await keep_models([body], may_infer)
        assert refused.value.reason is Reason.INFERENCE_UNAVAILABLE


class TestOurs:
    def test_the_information_is_the_same_each_time_and_has_what_the_sdk_reads(self):
        assert info_answer() == info_answer()
        assert set(json.loads(info_answer().body)) == {"name", "version", "uuid"}

    def test_health_is_the_gateways_own(self):
        assert health_answer("/healthz").status == health_answer("/readiness").status == 200
        assert health_answer("/readiness", is_ready=False).status == 503

    def test_an_image_has_the_callers_name_in_the_answer(self):
        body = b'{"image_id":"ours","time":0.5}'
        assert json.loads(name_image(body, "mine")) == {"image_id": "mine", "time": 0.5}
        assert json.loads(name_image(b'{"time":0.5}', "mine")) == {"time": 0.5}

    @pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"{", b"[" * 9000, b"{}" + b" " * MAX_LIST_BYTES])
    def test_an_answer_whose_name_cannot_be_replaced_is_none(self, body):
        with pytest.raises(Refusal):
            name_image(body, "mine")
