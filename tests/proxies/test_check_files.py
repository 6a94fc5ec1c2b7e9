"""The shipped files for proxies that ask first, each read by its own tool as it stands."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml
from asking import CADDY, ENVOY, NGINX, NGINX_MAIN, SHIPPED, Ports, program_runs, traefik_command

CHECK = SHIPPED / "nginx" / "check.conf"


def test_nginx_takes_its_file(tmp_path):
    text = CHECK.read_text().replace("/var/log/nginx", str(tmp_path))
    (tmp_path / "check.conf").write_text(text)
    (tmp_path / "nginx.conf").write_text(NGINX_MAIN.format(folder=tmp_path))
    done = program_runs([str(NGINX), "-t", "-c", str(tmp_path / "nginx.conf")], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


def test_envoy_takes_its_file(tmp_path):
    command = [str(ENVOY), "--mode", "validate", "-c", str(SHIPPED / "envoy" / "check.yaml")]
    done = program_runs([*command, "--log-level", "warning"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()


@pytest.mark.parametrize("command", [("validate", "--adapter", "caddyfile", "--config"), ("fmt", "--diff")])
def test_caddy_takes_its_file(command, tmp_path):
    done = program_runs([str(CADDY), *command, str(SHIPPED / "caddy" / "Caddyfile")], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_traefik_takes_its_files(tmp_path, new_wire, eventually):
    """It has no command for it: it is started, with its API, and asked what it made of them."""
    proxy, api = new_wire(), new_wire()
    ports = Ports(proxy=proxy.port, gateway=1, files=1)
    command = traefik_command(tmp_path, ports, tmp_path)
    file = tmp_path / "traefik.yaml"
    static = yaml.safe_load(file.read_text())
    static["api"] = {"insecure": True}
    static["entryPoints"]["traefik"] = {"address": f"127.0.0.1:{api.port}"}
    file.write_text(json.dumps(static))
    with (tmp_path / "output.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:

        def overview():
            try:
                answer = api.get("/api/overview")
            except OSError:
                assert process.poll() is None, (tmp_path / "output.log").read_text()
                return None
            return answer.json()["http"] if answer.status == 200 else None

        found = eventually(lambda: (now := overview()) and now["middlewares"]["total"] >= 5 and now)
        for kind in ("routers", "services", "middlewares"):
            assert (found[kind]["errors"], found[kind]["warnings"]) == (0, 0), found
        routers = api.get("/api/http/routers").json()
        [ours] = [one for one in routers if one["provider"] == "file"]
        assert ours["status"] == "enabled"
        names = ("without-claims", "unanswered", "check", "without-key", "without-tunnel")
        assert ours["middlewares"] == [f"{name}@file" for name in names]
    finally:
        process.terminate()
        process.wait(timeout=10)


def test_every_router_of_traefik_asks():
    rules = yaml.safe_load((SHIPPED / "traefik" / "check.yaml").read_text())["http"]
    assert all("check" in router["middlewares"] for router in rules["routers"].values())


def test_what_nginx_says_by_itself_is_as_in_the_other_files():
    texts = [path.read_text() for path in (CHECK, SHIPPED / "nginx" / "accel.conf")]
    mine, theirs = (dict(re.findall(r"^ +(\d{3}) ('\{.*\}\\n');$", text, re.MULTILINE)) for text in texts)
    assert mine.items() <= theirs.items()
    listed = {
        code for line in re.findall(r"error_page ([\d ]+) /_problem;", texts[0]) for code in line.split()
    }
    assert listed - {"418"} == set(mine) - {"431"}


def test_nginx_knows_every_status_that_the_gateway_may_tell():
    """Else a refusal would become 503."""
    from gateway.problems import PROBLEMS  # noqa: PLC0415 -- for this one test

    told = {int(code) for code in re.findall(r"\$cachegate_status = (\d{3})", CHECK.read_text())}
    never = {408, 412, 416}  # of a body or of content: a check has none
    never |= {501}  # of a workflow
    never |= {409, 422, 428}  # of changes, and of proofs
    never |= {431}  # by the server, before there is a check
    assert told == {problem.status for problem in PROBLEMS.values()} - never | {200}
