"""The manifests: valid, closed, and with the gateway as the only way to the server and the facts."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from manifests import FILES, NAMESPACE, WORKLOADS, labels_of, may, of_kind, pod_of

from gateway.adapters.embedded_valkey import EmbeddedValkey

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operators/kubernetes.md").read_text()
GATEWAY, SERVER, FACTS = (labels_of(name) for name in ("cachegate", "inference", "valkey"))
CONTAINERS = [
    pytest.param(name, container, id=f"{name}-{container['name']}")
    for name in WORKLOADS
    for container in (*pod_of(name).get("initContainers", ()), *pod_of(name)["containers"])
]
OTHERS = {
    "the proxy in front": ("ingress-nginx", {"app": "ingress-nginx"}),
    "Prometheus": ("monitoring", {"app": "prometheus"}),
    "another pod of the namespace": (NAMESPACE, {"app": "something"}),
    "a pod that calls itself the gateway, elsewhere": ("default", {"app": "cachegate"}),
    "the facts' server": (NAMESPACE, FACTS),
    "the inference server": (NAMESPACE, SERVER),
}
PORTS = {"gateway": 8080, "ops": 9090, "inference": 9001, "valkey": 6379, "ssh": 22}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_schema_of_kubernetes_takes_each_file_and_knows_every_field(file, run_tool):
    run_tool("kubernetes-validate", "--strict", file)


def test_a_field_that_is_not_there_is_noticed(tmp_path, run_tool):
    text = (ROOT / "deploy/kubernetes/gateways.yaml").read_text()
    file = tmp_path / "gateways.yaml"
    file.write_text(text.replace("readOnlyRootFilesystem", "readOnlyRoot", 1))
    run_tool("kubernetes-validate", "--strict", file, is_content=False)


# Who reaches whom


@pytest.mark.parametrize("who", OTHERS)
@pytest.mark.parametrize("port", PORTS.values(), ids=PORTS)
def test_nobody_but_the_gateway_reaches_the_server_or_the_facts(who, port):
    namespace, labels = OTHERS[who]
    for target in (SERVER, FACTS):
        assert not may("ingress", target, port, namespace=namespace, labels=labels)
        assert not may("ingress", target, port, address="203.0.113.7")


def test_the_gateway_reaches_the_server_and_the_facts_by_one_port_each():
    for target, own in ((SERVER, PORTS["inference"]), (FACTS, PORTS["valkey"])):
        for port in PORTS.values():
            is_open = may("ingress", target, port, labels=GATEWAY) and may(
                "egress", GATEWAY, port, labels=target
            )
            assert is_open is (port == own)


@pytest.mark.parametrize("who", OTHERS)
def test_clients_reach_the_gateway_through_the_proxy_alone_and_only_prometheus_its_ops_listener(who):
    namespace, labels = OTHERS[who]
    assert may("ingress", GATEWAY, 8080, namespace=namespace, labels=labels) is (who == "the proxy in front")
    assert may("ingress", GATEWAY, 9090, namespace=namespace, labels=labels) is (who == "Prometheus")
    assert not may("ingress", GATEWAY, 9091, namespace=namespace, labels=labels)  # the admin API


def test_the_facts_server_reaches_nothing_and_the_inference_server_only_what_is_outside():
    for address in ("203.0.113.7", "10.0.0.1", "169.254.169.254", "192.168.1.1"):
        assert not may("egress", FACTS, 443, address=address)
        assert may("egress", SERVER, 443, address=address) is (address == "203.0.113.7")
    for namespace, labels in OTHERS.values():
        assert not may("egress", SERVER, 443, namespace=namespace, labels=labels)
        assert not may("egress", FACTS, 443, namespace=namespace, labels=labels)
    assert not may("egress", SERVER, 8080, labels=GATEWAY)


def test_a_pod_that_no_policy_names_reaches_nothing_and_is_reached_by_nobody():
    someone = {"app": "something"}
    assert not may("ingress", someone, 80, labels=GATEWAY)
    assert not may("egress", someone, 443, address="203.0.113.7")


def test_no_service_is_reachable_from_outside_of_the_cluster():
    assert {one["spec"].get("type", "ClusterIP") for one in of_kind("Service")} == {"ClusterIP"}
    for name in WORKLOADS:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod_of(name).keys()
        ports = [port for one in pod_of(name)["containers"] for port in one.get("ports", ())]
        assert not [port for port in ports if "hostPort" in port]


# What a pod may do


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_is_nobodys_root_and_has_no_token_of_the_cluster(name):
    pod = pod_of(name)
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    # Else each start opens every file of the volume to the group.
    assert context["fsGroupChangePolicy"] == "OnRootMismatch"
    assert pod["automountServiceAccountToken"] is False
    # Else Kubernetes puts variables that begin with CACHEGATE_ into the environment, and nothing starts.
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize(("name", "container"), CONTAINERS)
def test_a_container_gains_no_rights_and_has_bounds(name, container):
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context.get("readOnlyRootFilesystem") is (None if name == "inference" else True)
    assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize(("name", "container"), CONTAINERS)
def test_what_is_mounted_is_a_volume_and_the_gateway_can_write_nothing_but_its_state(name, container):
    pod = pod_of(name)
    volumes = {one["name"] for one in pod["volumes"]}
    volumes |= {one["metadata"]["name"] for one in WORKLOADS[name]["spec"].get("volumeClaimTemplates", ())}
    mounts = {one["name"]: one for one in container["volumeMounts"]}
    assert mounts.keys() <= volumes
    if name == "cachegate":
        assert {one for one, mount in mounts.items() if not mount.get("readOnly")} == {"state", "tmp"}
        [cache] = [one for one in pod["volumes"] if one["name"] == "cache"]
        assert cache["persistentVolumeClaim"]["readOnly"] is True


def test_secrets_are_files_that_the_group_of_the_pod_may_read_and_no_variables():
    for name in WORKLOADS:
        for volume in (one for one in pod_of(name)["volumes"] if "secret" in one):
            assert volume["secret"]["defaultMode"] == 0o440
    for _, container in (parameter.values for parameter in CONTAINERS):
        assert "secret" not in json.dumps([container.get("env"), container.get("envFrom")]).lower()


def test_gateway_and_server_are_the_engines_user():
    users = [pod_of(name)["securityContext"]["runAsUser"] for name in ("cachegate", "inference")]
    container = (ROOT / "deploy/container/Containerfile").read_text()
    [user] = re.findall(r"^USER (\d+):\1$", container, re.MULTILINE)
    assert users == [int(user)] * 2
    # The group that may write the volume is that user's private one, as the trust in files asks for.
    assert f"groupadd --gid {user} cachegate" in container
    assert re.search(rf"useradd --uid {user} --gid {user} .* cachegate$", container, re.MULTILINE)


def test_one_gateway_at_a_time_may_be_taken_away():
    [budget] = of_kind("PodDisruptionBudget")
    assert budget["spec"]["selector"]["matchLabels"] == GATEWAY
    assert budget["spec"]["maxUnavailable"] == 1
    assert WORKLOADS["cachegate"]["spec"]["replicas"] >= 2


def test_probes_ask_what_the_ops_listener_has(new_installation):
    [container] = pod_of("cachegate")["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    words = container["args"]
    assert words[words.index("--ops-port") + 1] == str(ports["ops"])
    assert words[words.index("--port") + 1] == str(ports["http"])
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert {probe["port"] for probe in probes} == {"ops"}
    gateway = new_installation("probes").serve()
    try:
        assert [gateway.ops.get(probe["path"]).status for probe in probes] == [200] * 3
    finally:
        gateway.stop()


def test_every_object_that_is_mounted_is_a_manifest_or_made_by_a_command_of_the_page():
    made = set(re.findall(r"kubectl create (secret generic|configmap) ([a-z-]+)", PAGE))
    made |= {("claim", one["metadata"]["name"]) for one in of_kind("PersistentVolumeClaim")}
    wanted = set()
    for name in WORKLOADS:
        for volume in pod_of(name)["volumes"]:
            if "secret" in volume:
                wanted.add(("secret generic", volume["secret"]["secretName"]))
            elif "configMap" in volume:
                wanted.add(("configmap", volume["configMap"]["name"]))
            elif "persistentVolumeClaim" in volume:
                wanted.add(("claim", volume["persistentVolumeClaim"]["claimName"]))
        for container in pod_of(name)["containers"]:
            wanted |= {("configmap", one["configMapRef"]["name"]) for one in container.get("envFrom", ())}
    assert wanted == made


def test_every_file_that_the_page_puts_into_an_object_is_made_or_shipped():
    made = {"node.tar", "secrets/settings", "secrets/valkey"}
    for path in re.findall(r"--from-(?:file|env-file)=(?:[\w.]+=)?(\S+)", PAGE):
        assert path in made or (ROOT / path).is_file(), path


@pytest.fixture
def set_up(installation, tmp_path):
    """Run the init container's own script for a second node, with the folders of this test."""
    [container] = pod_of("cachegate")["initContainers"]
    *shell, script = container["command"]
    packed = installation.folder / "packed.tar"
    [names] = re.findall(r"^tar -C first -cf node.tar (.*)$", PAGE, re.MULTILINE)
    (installation.state / "signing" / "tokens").mkdir(exist_ok=True)  # there with a public URL
    subprocess.run(
        ["tar", "-C", installation.state, "-cf", packed, *shlex.split(names)], check=True, timeout=60
    )
    program = tmp_path / "bin" / "cachegate"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway "$@"\n')
    program.chmod(0o755)
    assert script.count("/node/node.tar") == 1
    state = tmp_path / "node" / "state"
    variables = installation.variables()
    variables |= {"CACHEGATE_STATE": str(state), "PATH": f"{program.parent}:{variables['PATH']}"}

    def run(redis_url):
        done = subprocess.run(
            [*shell, script.replace("/node/node.tar", str(packed))],
            env=variables | {"CACHEGATE_REDIS_URL": redis_url}, capture_output=True, text=True, timeout=120,
            check=False, umask=0o022,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        assert "cg_" not in done.stderr
        return state

    return run


def is_closed(state):
    return not [path for path in (state, *state.rglob("*")) if path.lstat().st_mode & 0o077]


def test_the_set_up_of_a_node_takes_over_shared_secrets_and_tells_no_key(installation, set_up):
    first = installation.state
    with EmbeddedValkey(first).running() as facts:  # one server for both nodes
        second = set_up(facts)
    for name in ("peppers/p1.pepper", "signing/links.key", "signing/hook.key"):
        assert (second / name).read_bytes() == (first / name).read_bytes()
    assert (second / "signing/audit.pem").read_bytes() != (first / "signing/audit.pem").read_bytes()
    assert is_closed(second)


def test_a_node_that_is_set_up_again_keeps_its_own_and_is_closed_again(installation, set_up):
    """As after a restart, on a volume that Kubernetes has opened to the group."""
    with EmbeddedValkey(installation.state).running() as facts:
        state = set_up(facts)
        own = (state / "signing/audit.pem").read_bytes()
        for path in (state, *state.rglob("*")):
            path.chmod(path.stat().st_mode | (0o070 if path.is_dir() else 0o060))
        set_up(facts)
    assert (state / "signing/audit.pem").read_bytes() == own
    assert is_closed(state)


def test_a_first_key_that_is_made_by_a_pod_gets_into_no_log(set_up, tmp_path):
    empty = tmp_path / "empty"
    with EmbeddedValkey(empty).running() as facts:
        set_up(facts)
        keys = redis.Redis(unix_socket_path=facts.removeprefix("unix://").partition("?")[0]).keys("*:k:*")
    assert keys, "the set-up made an admin key: there was none"


def test_the_gateway_is_started_with_options_that_it_has(run_tool):
    [container] = pod_of("cachegate")["containers"]
    command, *words = container["args"]
    said = run_tool("cachegate", command, "--help")
    assert all(word in said for word in words if word.startswith("--"))
