from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from gateway.model.errors import Misconfigured
from gateway.server.serve_options import ServePlan, TlsFiles

FILES = TlsFiles(certificate=Path("c"), key=Path("k"), key_password="s3cret")


def plan(**changes):
    return ServePlan(**{"factory": "m:f", "argument": 1, "host": "::1", "port": 0, **changes})


@pytest.mark.parametrize("workers", [0, -1])
def test_fewer_than_one_worker_is_refused(workers):
    with pytest.raises(Misconfigured):
        plan(workers=workers)


def test_a_key_file_password_is_not_printed():
    assert "s3cret" not in repr(plan(tls=FILES)) + repr(plan(tls=FILES).worker_order())


def test_client_certificates_are_required_once_there_is_an_authority_for_them():
    assert "ssl_cert_reqs" not in plan(tls=FILES).worker_order().tls
    files = TlsFiles(certificate=Path("c"), key=Path("k"), client_ca=Path("ca"))
    assert plan(tls=files).worker_order().tls["ssl_cert_reqs"] is ssl.CERT_REQUIRED
