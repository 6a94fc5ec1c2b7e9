"""A provider's answer: what is parsed of it, and that the rest is unchanged."""

from __future__ import annotations

import json

import pytest

from gateway.engine.answers import (
    MAX_ANSWER_BYTES,
    MAX_FILES,
    MAX_MEMBERS,
    MAX_PACKAGES,
    parse_answer,
    rewritten,
)
from gateway.engine.faults import UPSTREAM
from gateway.model.errors import Unavailable

MD5 = "b1946ac92492d2347c6235b4d2611184"
SIGNED = "https://storage.example/b/weights.onnx?X-Goog-Signature=s3cret"


def _file(handle="weights.onnx", **changes):
    return _without({"fileHandle": handle, "downloadUrl": SIGNED, "md5Hash": MD5, **changes})


def _package(package="pkgA1", *files, **changes):
    fields = {
        "type": "external-model-package-v1",
        "packageId": package,
        "packageManifest": {"type": "onnx-model-package-v1", "opset": 17},
        "modelFeatures": None,
        "trustedSource": True,
        "packageFiles": list(files or [_file()]),
    }
    return _without({**fields, **changes})


def _body(*packages, **changes):
    metadata = {
        "type": "external-model-metadata-v1",
        "modelId": "acme/cars/1",
        "modelArchitecture": "resnet",
        "taskType": "classification",
        "modelPackages": list(packages or [_package()]),
    }
    # Without blanks, as `rewritten` writes: the unchanged part can then be compared byte by byte.
    return json.dumps({"modelMetadata": _without({**metadata, **changes})}, separators=(",", ":")).encode()


def _without(fields):
    return {name: value for name, value in fields.items() if value is not ...}


def _link(package, file):
    return f"https://gw.example/d/{package}/{file.handle}"


def _shown(raw):
    """The packages that a client would see, after our links were inserted."""
    return json.loads(rewritten(parse_answer(raw), _link))["modelMetadata"]["modelPackages"]


class TestReading:
    def test_an_answer_offers_packages_and_their_files(self):
        raw = _body(
            _package("pkgA1", _file(), _file("class_names.txt", md5Hash=None)),
            _package("pkgA2", _file("m/w.pt", md5Hash=...)),
            nextPage="2",
        )
        answer = parse_answer(raw)
        assert (answer.model, answer.next_page, answer.withheld) == ("acme/cars/1", "2", 0)
        assert [
            [(one.package, file.handle, file.md5, file.download_url) for file in one.files]
            for one in answer.packages
        ] == [
            [("pkgA1", "weights.onnx", MD5, SIGNED), ("pkgA1", "class_names.txt", None, SIGNED)],
            [("pkgA2", "m/w.pt", None, SIGNED)],
        ]

    @pytest.mark.parametrize("mark", [..., None])
    def test_the_last_page_has_no_next(self, mark):
        assert parse_answer(_body(nextPage=mark)).next_page is None

    def test_a_file_without_a_url_is_for_us_to_link(self):
        assert (
            parse_answer(_body(_package("p", _file(downloadUrl="")))).packages[0].files[0].download_url
            is None
        )

    def test_a_provider_s_signature_is_not_printed(self):
        assert "s3cret" not in repr(parse_answer(_body()))

    def test_an_answer_without_packages_is_one(self):
        assert parse_answer(_body(modelPackages=[])).packages == ()


class TestRewriting:
    def test_only_links_become_others(self):
        other = {"downloadUrl": "https://other.example/"}
        raw = _body(
            _package("pkgA1", _file(), _file("a.txt", x=[other])), _package("pkgA2", more=other), y=other
        )
        expected = raw.replace(SIGNED.encode(), b"LINK")
        assert raw.count(SIGNED.encode()) == 3
        assert rewritten(parse_answer(raw), lambda package, file: "LINK") == expected

    def test_each_file_gets_its_own_link(self):
        shown = _shown(_body(_package("pkgA1", _file(), _file("a.txt")), _package("pkgA2")))
        assert [file["downloadUrl"] for package in shown for file in package["packageFiles"]] == [
            "https://gw.example/d/pkgA1/weights.onnx",
            "https://gw.example/d/pkgA1/a.txt",
            "https://gw.example/d/pkgA2/weights.onnx",
        ]

    def test_values_that_are_not_looked_at_keep_their_bytes(self):
        odd = b'{"b":0.10,"a":1E400,"n":12345678901234567890123,"u":"\\u017c\\/","b2":-0.0,"dup":1,"dup":2}'
        raw = _body(recommendedParameters="ODD").replace(b'"ODD"', odd)
        assert odd in rewritten(parse_answer(raw), _link)

    def test_keys_keep_their_order(self):
        raw = _body(_package("p", {"md5Hash": MD5, "x": 1, "downloadUrl": SIGNED, "a": 2, "fileHandle": "w"}))
        answer = json.loads(rewritten(parse_answer(raw), _link))
        assert list(answer["modelMetadata"]) == list(json.loads(raw)["modelMetadata"])
        assert list(answer["modelMetadata"]["modelPackages"][0]["packageFiles"][0]) == [
            "md5Hash",
            "x",
            "downloadUrl",
            "a",
            "fileHandle",
        ]

    def test_a_key_that_came_twice_is_decided_by_and_shown_alike(self):
        twice = b'"fileHandle":"good.txt","fileHandle":"evil.txt"'
        raw = _body(_package("p", _file("ODD"))).replace(b'"fileHandle":"ODD"', twice)
        assert _shown(raw)[0]["packageFiles"][0]["fileHandle"] == "evil.txt"
        assert _shown(raw)[0]["packageFiles"][0]["downloadUrl"].endswith("/evil.txt")

    def test_an_escaped_key_is_the_same_key(self):
        raw = _body().replace(b'"downloadUrl"', b'"download\\u0055rl"')
        assert b"s3cret" not in rewritten(parse_answer(raw), _link)

    def test_a_link_is_written_as_a_json_string_whatever_it_holds(self):
        body = rewritten(parse_answer(_body()), lambda package, file: 'a"b\\c\n')
        assert (
            json.loads(body)["modelMetadata"]["modelPackages"][0]["packageFiles"][0]["downloadUrl"]
            == 'a"b\\c\n'
        )

    def test_what_is_beside_the_metadata_passes(self):
        raw = _body()[:-1] + b',"status":{"x":1}}'
        assert json.loads(rewritten(parse_answer(raw), _link))["status"] == {"x": 1}

    def test_one_answer_can_be_rewritten_for_many(self):
        answer = parse_answer(_body())
        assert rewritten(answer, lambda package, file: "one") != rewritten(
            answer, lambda package, file: "two"
        )
        assert rewritten(answer, _link) == rewritten(answer, _link)

    def test_a_package_of_an_unknown_manifest_type_gets_links(self):
        shown = _shown(_body(_package(packageManifest={"type": "npu-model-package-v9"})))
        assert shown[0]["packageFiles"][0]["downloadUrl"].startswith("https://gw.example/")


WITHHELD = [
    {"type": "external-model-package-v2"},
    {"type": ...},
    {"type": 1},
    {"packageId": ...},
    {"packageId": "a-b"},
    {"packageId": "CON"},
    {"packageId": SIGNED},
    {"packageId": {"url": SIGNED}},
    {"packageManifest": ...},
    {"packageManifest": "x"},
    {"packageFiles": ...},
    {"packageFiles": {}},
    {"packageFiles": ["x"]},
    {"packageFiles": [_file(), _file()]},
    {"packageFiles": [_file("a"), _file("A")]},
    {"packageFiles": [_file(fileHandle=...)]},
    {"packageFiles": [_file("../a")]},
    {"packageFiles": [_file("model_config.json")]},
    {"packageFiles": [_file(downloadUrl=...)]},
    {"packageFiles": [_file(downloadUrl=1)]},
    {"packageFiles": [_file(md5Hash=MD5.upper())]},
    {"packageFiles": [_file(md5Hash="")]},
]


class TestWithholding:
    @pytest.mark.parametrize("changes", WITHHELD, ids=repr)
    def test_a_package_that_the_engine_would_skip_is_shown_without_its_links(self, changes):
        raw = _body(_package("good"), _package(**{"package": "bad1", **changes}))
        answer = parse_answer(raw)
        assert ([one.package for one in answer.packages], answer.withheld) == (["good"], 1)
        good, withheld = _shown(raw)
        assert good["packageFiles"][0]["downloadUrl"] == "https://gw.example/d/good/weights.onnx"
        assert withheld.keys() <= {"type", "packageId"}
        assert "s3cret" not in json.dumps(withheld)

    def test_it_keeps_the_name_that_the_engine_warns_of(self):
        assert _shown(_body(_package("pkg9", type="external-model-package-v2"))) == [
            {"type": "external-model-package-v2", "packageId": "pkg9"}
        ]

    @pytest.mark.parametrize(("one", "other"), [("pkg", "pkg"), ("pkgCase", "PKGCASE")])
    def test_packages_that_cannot_be_told_apart_are_all_withheld(self, one, other):
        answer = parse_answer(_body(_package(one), _package(other), _package("good")))
        assert ([one.package for one in answer.packages], answer.withheld) == (["good"], 2)

    def test_a_withheld_package_takes_its_id_from_another(self):
        answer = parse_answer(_body(_package("pkg"), _package("pkg", type="other")))
        assert answer.packages == ()

    def test_no_link_is_asked_for(self):
        asked = []
        raw = _body(_package("bad", type="x"))
        rewritten(parse_answer(raw), lambda package, file: asked.append(package) or "")
        assert asked == []


NOT_ANSWERS = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"error": "endpoint not found"}',
    b'{"modelMetadata": null}',
    b"{",
    _body()[:-1],
    _body() + b"x",
    b"\xef\xbb\xbf" + _body(),
    _body(taskType="ODD").replace(b"ODD", b"\xff"),
    _body(taskType="ODD").replace(b'"ODD"', b"NaN"),
    _body(taskType="ODD").replace(b'"ODD"', b"[" * 100_000),
    _body(type="external-model-metadata-v2"),
    _body(type=...),
    _body(modelId=...),
    _body(modelId=None),
    _body(modelId="a/../b"),
    _body(modelArchitecture=...),
    _body(modelArchitecture=1),
    _body(modelPackages=...),
    _body(modelPackages={}),
    _body(modelPackages=["x"]),
    _body(modelPackages=[{}] * (MAX_PACKAGES + 1)),
    _body(modelPackages=[{"packageFiles": [{}] * (MAX_FILES // 2 + 1)}] * 2),
    _body(taskType=[0] * MAX_MEMBERS),
    _body(taskType={f"{number}": 0 for number in range(MAX_MEMBERS // 2)}),
    _body(nextPage=2),
    _body(taskType="x" * MAX_ANSWER_BYTES),
]


@pytest.mark.parametrize("raw", NOT_ANSWERS, ids=lambda raw: repr(raw[:60]))
def test_what_is_no_answer_decides_nothing(raw):
    with pytest.raises(Unavailable) as fault:
        parse_answer(raw)
    assert fault.value.dependency == UPSTREAM
    assert "s3cret" not in str(fault.value)
