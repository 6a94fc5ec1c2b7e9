from __future__ import annotations

import pytest

from gateway.credential.extract_link import extract_link
from gateway.faces.download import DOWNLOAD, routes
from gateway.faces.route import declarations
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.errors import Reason, Refusal
from tests import samples


def request(raw_path):
    return samples.wire_request(raw_path=raw_path, client="192.0.2.1", route=DOWNLOAD.template)


def test_a_download_reads_and_its_caller_is_in_the_url():
    [declared] = declarations(routes())
    assert declared.template == DOWNLOAD.template
    assert declared.locate is DOWNLOAD.locate
    assert (DOWNLOAD.action, DOWNLOAD.methods) == (Action.READ, ("GET", "HEAD"))
    assert DOWNLOAD.extract is extract_link


@pytest.mark.parametrize(
    ("raw_path", "is_one"),
    [
        (b"/d/acme/cars/1/-/pkgA1/weights.onnx", True),
        (b"/d/a/-/p/x/-/y", True),
        (b"/d/\xff/-/%/", True),
        (b"/d/a/-/p", False),
        (b"/d/a", False),
        (b"/d", False),
        (b"/dx/a/-/p/f", False),
        (b"/D/a/-/p/f", False),
        (b"/v1/models/a/-/p/f", False),
    ],
)
def test_a_download_is_known_by_its_shape_alone(raw_path, is_one):
    assert DOWNLOAD.matches(raw_path) is is_one


def test_a_download_names_a_file():
    assert DOWNLOAD.locate(request(b"/d/acme%2F-%2Fx/-/pkgA1/a/b.bin")) == Resource(
        kind=ResourceKind.FILE, model="acme/-/x", package="pkgA1", file="a/b.bin"
    )


@pytest.mark.parametrize("raw_path", [b"/d/a//b/-/p/f", b"/d/../-/p/f", b"/d/a/-/p/%66", b"/d//-/p/f"])
def test_what_names_no_file_is_refused(raw_path):
    with pytest.raises(Refusal) as caught:
        DOWNLOAD.locate(request(raw_path))
    assert caught.value.reason is Reason.MALFORMED_PATH
