"""The manifests of Kubernetes as documents, and who reaches whom by their network policies."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
DOCUMENTS = [document for file in FILES for document in yaml.safe_load_all(file.read_text())]
NAMESPACE = "cachegate"


def of_kind(*kinds):
    return [one for one in DOCUMENTS if one["kind"] in kinds]


WORKLOADS = {one["metadata"]["name"]: one for one in of_kind("StatefulSet", "Deployment")}


def pod_of(name):
    return WORKLOADS[name]["spec"]["template"]["spec"]


def labels_of(name):
    return WORKLOADS[name]["spec"]["template"]["metadata"]["labels"]


def _selects(selector, labels):
    assert selector.keys() <= {"matchLabels"}, "the tests know no other selectors"
    return selector.get("matchLabels", {}).items() <= labels.items()


def _matches(peer, namespace, labels, address):
    """Whether a peer of a rule is this pod, or this address outside of the cluster."""
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        return (
            address is not None
            and ip_address(address) in ip_network(block["cidr"])
            and not any(ip_address(address) in ip_network(one) for one in block.get("except", ()))
        )
    if address is not None:
        return False
    names = {"kubernetes.io/metadata.name": namespace}
    is_there = (
        _selects(peer["namespaceSelector"], names) if "namespaceSelector" in peer else namespace == NAMESPACE
    )
    return is_there and _selects(peer.get("podSelector", {}), labels)


def may(direction, own, port, *, namespace=NAMESPACE, labels=None, address=None, protocol="TCP"):
    """Whether the policies let a pod of ours, by its labels, talk with a peer: `ingress` or `egress`.

    As Kubernetes says it: a pod that a policy of that direction selects gets what some rule of these allows;
    one that none selects gets everything.
    """
    title = direction.capitalize()
    policies = [
        one["spec"]
        for one in of_kind("NetworkPolicy")
        if _selects(one["spec"]["podSelector"], own) and title in one["spec"]["policyTypes"]
    ]
    side = "from" if direction == "ingress" else "to"
    return not policies or any(
        (side not in rule or any(_matches(peer, namespace, labels or {}, address) for peer in rule[side]))
        and (
            "ports" not in rule
            or any(one["port"] == port and one.get("protocol", "TCP") == protocol for one in rule["ports"])
        )
        for policy in policies
        for rule in policy.get(direction, ())
    )
