"""The content face: one route for each shape, pages, and documents without the disk's layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.faces import content, identity
from gateway.faces.content import BLOB, CATALOGUE, FILE, MODEL, PACKAGE, describe, routes
from gateway.model.access import Action
from gateway.model.errors import Reason, Refusal
from gateway.model.listings import CataloguePage, FileEntry, ModelListing, PackageListing
from gateway.model.names import FileHandle, Md5, ModelId, PackageId
from gateway.resource.paths import locate
from tests import samples

CASES = json.loads((Path(__file__).parents[2] / "cases" / "paths.json").read_text("utf-8"))["cases"]
MD5 = Md5("0123456789abcdef0123456789abcdef")


def request_for(raw_path=b"/v1/models", query=b""):
    return samples.wire_request(raw_path=raw_path, query=query, client="")


def raw_path(case):
    if "repeat" in case:
        prefix, unit, times, suffix = case["repeat"]
        return (prefix + unit * times + suffix).encode()
    return case["path"].encode()


@pytest.mark.parametrize("case", [pytest.param(one, id=one["name"]) for one in CASES])
def test_a_path_has_at_most_one_route_and_that_one_locates_what_it_names(case):
    path = raw_path(case)
    every = [route.declaration for route in (*routes(), *identity.routes())]
    matching = [one for one in every if one.matches(path)]
    assert len(matching) <= 1
    if "names" in case:
        [route] = matching
        assert route.locate(request_for(path)).kind == case["names"]["kind"]
        if case["names"]["kind"] != "catalogue":
            assert replace(route.locate(request_for(path)), page=None) == locate(path)
    elif matching:
        with pytest.raises(Refusal):
            matching[0].locate(request_for(path))


def test_only_files_and_blobs_need_the_right_to_read():
    assert {one.action for one in (CATALOGUE, MODEL, PACKAGE)} == {Action.DISCOVER}
    assert {one.action for one in (FILE, BLOB)} == {Action.READ}


def test_every_route_answers_reads_and_nothing_else():
    assert {route.declaration.methods for route in routes()} == {("GET", "HEAD")}


class TestPages:
    def page(self, query):
        return CATALOGUE.locate(request_for(query=query)).page

    @pytest.mark.parametrize(
        ("query", "after", "limit"),
        [
            (b"", None, 100),
            (b"limit=1", None, 1),
            (b"limit=1000", None, 1000),
            (b"after=acme/cars/1", "acme/cars/1", 100),
            (b"after=acme%2Fcars%2F1&limit=7", "acme/cars/1", 7),
            (b"after=%C5%BC%C3%B3%C5%82%C4%87/1", "żółć/1", 100),
            (b"note=x&limit=2&other", None, 2),
            (b"%6Cimit=%32", None, 2),
            (b"note=%&limit=2", None, 2),
            (b"&" * 24 + b"limit=2", None, 2),
        ],
    )
    def test_a_page_begins_after_a_model_and_has_a_limit(self, query, after, limit):
        assert (self.page(query).after, self.page(query).limit) == (after, limit)

    @pytest.mark.parametrize(
        "query",
        [
            *(b"limit=0", b"limit=1001", b"limit=-1", b"limit=", b"limit=x", b"limit=1.0", b"limit=1e2"),
            *(b"limit=%D9%A1", b"limit=9999999999999999999999", b"limit=+1", b"limit=%201"),
            *(b"limit=0000000011500", b"limit=01", b"limit=1%00", b"limit=1%0A", b"limit=1&limit=1"),
            *(
                "limit=\u0661".encode(),
                b"limit=%EF%BC%91",
                b"limit=1_0",
                b"limit=%2",
                b"after=a%2",
                b"after=a&after=a",
            ),
            *(b"%6Cimit=2&limit=2", b"after=" + b"/".join([b"a"] * 17), b"&" * 32, b";" * 32),
            *(
                b"after=",
                b"after=..",
                b"after=a//b",
                b"after=%00",
                b"after=%ff",
                b"after=\xc5\xbc",
                b"after=*",
            ),
            b"&".join(b"a%d=1" % number for number in range(40)),
        ],
    )
    def test_a_query_that_does_not_parse_is_refused(self, query):
        with pytest.raises(Refusal) as refusal:
            self.page(query)
        assert refusal.value.reason is Reason.MALFORMED_QUERY


class TestPagesOfAPackage:
    def page(self, query):
        return PACKAGE.locate(request_for(b"/v1/models/a/-/p", query)).page

    @pytest.mark.parametrize(
        ("query", "after", "limit"),
        [
            (b"", None, 1000),
            (b"limit=1", None, 1),
            (b"after=w.onnx", "w.onnx", 1000),
            (b"after=x%2Fw.onnx&limit=7", "x/w.onnx", 7),
        ],
    )
    def test_a_page_begins_after_a_file_and_has_a_limit(self, query, after, limit):
        assert (self.page(query).after, self.page(query).limit) == (after, limit)

    @pytest.mark.parametrize(
        "query",
        [b"limit=0", b"limit=1001", b"limit=01", b"after=", b"after=a//b", b"after=..", b"after=a%20b"],
    )
    def test_a_query_that_does_not_parse_is_refused(self, query):
        with pytest.raises(Refusal) as refusal:
            self.page(query)
        assert refusal.value.reason is Reason.MALFORMED_QUERY


class TestDocuments:
    def test_a_page_of_models(self):
        found = CataloguePage(models=(ModelId("a/b c"),), after=ModelId("a/b c"))
        assert describe(found) == {
            "models": [{"id": "a/b c", "link": "/v1/models/a/b%20c"}],
            "after": "a/b c",
        }

    def test_a_model(self):
        found = ModelListing(model=ModelId("a/-/b"), packages=(PackageId("p"),))
        link = "/v1/models/a/%2D/b"
        assert describe(found) == {
            "id": "a/-/b",
            "link": link,
            "packages": [{"id": "p", "link": f"{link}/-/p"}],
        }

    def test_a_package(self):
        files = (
            FileEntry(handle=FileHandle("w/x.onnx"), size=3, md5=MD5),
            FileEntry(handle=FileHandle("notes.txt"), size=0, md5=None),
        )
        found = PackageListing(model=ModelId("a"), package=PackageId("p"), files=files)
        link = "/v1/models/a/-/p"
        assert describe(found) == {
            "model": "a",
            "package": "p",
            "link": link,
            "files": [
                {
                    "file": "w/x.onnx",
                    "size": 3,
                    "md5": MD5,
                    "link": f"{link}/w/x.onnx",
                    "blob": f"/v1/blobs/{MD5}",
                },
                {"file": "notes.txt", "size": 0, "md5": None, "link": f"{link}/notes.txt", "blob": None},
            ],
            "after": None,
        }

    def test_every_link_leads_back_to_what_it_is_a_link_to(self):
        model = ModelId("żółć/-/a b/100%")
        document = describe(ModelListing(model=model, packages=(PackageId("p"),)))
        assert locate(document["link"].encode()).model == model
        assert locate(document["packages"][0]["link"].encode()).package == "p"

    def test_what_is_no_document_is_not_made_one(self):
        with pytest.raises(TypeError):
            describe(object())

    def test_the_next_page_is_asked_for_with_the_same_limit(self):
        found = CataloguePage(models=(), after=ModelId("a b/ż&=#"))
        link = content._next_page(found, CATALOGUE.locate(request_for(query=b"limit=3")))
        path, _, query = link.partition("?")
        assert path == "/v1/models"
        page = CATALOGUE.locate(request_for(query=query.encode())).page
        assert (page.after, page.limit) == ("a b/ż&=#", 3)

    def test_so_is_that_of_a_package(self):
        found = PackageListing(
            model=ModelId("a b/-/c"), package=PackageId("p"), files=(), after=FileHandle("x/y.bin")
        )
        raw_path = b"/v1/models/a%20b/%2D/c/-/p"
        link = content._next_page(found, PACKAGE.locate(request_for(raw_path, b"limit=3")))
        path, _, query = link.partition("?")
        assert path == raw_path.decode()
        page = PACKAGE.locate(request_for(raw_path, query.encode())).page
        assert (page.after, page.limit) == ("x/y.bin", 3)

    def test_the_last_page_of_a_package_has_no_next(self):
        found = PackageListing(model=ModelId("a"), package=PackageId("p"), files=())
        assert content._next_page(found, PACKAGE.locate(request_for(b"/v1/models/a/-/p"))) is None
