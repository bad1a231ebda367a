"""The kustomize base and its overlays: every object is what its schema allows."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy.files import BASE, DEPLOY, KUBERNETES_VERSION, check, load, objects, only

OVERLAYS = sorted(path.parent.name for path in (DEPLOY / "kubernetes" / "overlays").glob("*/kustomization.yaml"))
CRD = "CHAINRULE_KUBERAY_CRD"
"""Environment variable: KubeRay's ray.io_rayclusters.yaml. It is not in this repository, nor in any package."""


def pods() -> list[dict[str, Any]]:
    """The Pods that Kubernetes or KubeRay would make, as far as the base says."""
    spec = only("RayCluster", "chainrule-ray")["spec"]
    templates = [only("Deployment", "chainrule")["spec"]["template"], spec["headGroupSpec"]["template"]]
    templates += [group["template"] for group in spec["workerGroupSpecs"]]
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **it["metadata"]}, "spec": it["spec"]}
        for it in templates
    ]


def validate(found: list[dict[str, Any]], folder: Path) -> None:
    (folder / "objects.yaml").write_text(yaml.safe_dump_all(found))
    said = check("kubernetes-validate", "--strict", "-k", KUBERNETES_VERSION, folder / "objects.yaml")
    assert said.count(" passed for resource ") == len(found), said


def rendered(overlay: Path) -> list[dict[str, Any]]:
    program = shutil.which("kustomize") or shutil.which("kubectl")
    if program is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    verb = "build" if Path(program).name == "kustomize" else "kustomize"
    ran = subprocess.run([program, verb, str(overlay)], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return list(yaml.safe_load_all(ran.stdout))


def test_every_object_of_the_base_is_what_kubernetes_allows(tmp_path: Path) -> None:
    validate([it for it in objects() if it["kind"] != "RayCluster"], tmp_path)


def test_every_pod_is_what_kubernetes_allows(tmp_path: Path) -> None:
    """Those of the RayCluster, too, which its schema only repeats."""
    validate(pods(), tmp_path)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_of_an_overlay_is_what_kubernetes_allows(overlay: str, tmp_path: Path) -> None:
    found = rendered(DEPLOY / "kubernetes" / "overlays" / overlay)
    validate([it for it in found if it["kind"] != "RayCluster"], tmp_path)
    images = {image for image in str(found).split("'") if image.startswith("registry.example.org/chainrule:")}
    assert len(images) == 1  # one for the service and all nodes
    assert "'image': 'chainrule'" not in str(found)


def test_the_ray_cluster_is_what_kuberay_allows() -> None:
    if CRD not in os.environ:
        pytest.skip(f"{CRD} does not name KubeRay's ray.io_rayclusters.yaml")
    [schema] = [
        version["schema"]["openAPIV3Schema"]
        for version in load(Path(os.environ[CRD]))["spec"]["versions"]
        if version["name"] == "v1"
    ]
    _refuse_unknown(schema["properties"]["spec"])
    jsonschema.validate(only("RayCluster", "chainrule-ray"), schema)


def test_ray_asks_for_a_token_and_the_service_has_it() -> None:
    cluster = only("RayCluster", "chainrule-ray")
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    [service] = only("Deployment", "chainrule")["spec"]["template"]["spec"]["containers"]
    variables = {it["name"]: it.get("value") or it["valueFrom"]["secretKeyRef"] for it in service["env"]}
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["RAY_AUTH_TOKEN"] == {"name": cluster["metadata"]["name"], "key": "auth_token"}
    assert variables["CHAINRULE_RAY_ADDRESS"] == f"{cluster['metadata']['name']}-head-svc:6379"


def test_no_two_services_use_one_store() -> None:
    deployment = only("Deployment", "chainrule")["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    assert only("PersistentVolumeClaim", "chainrule-data")["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_no_container_has_more_rights_than_it_needs() -> None:
    for pod in pods():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["metadata"]["labels"]["chainrule.dev/ray"] == "member"  # whom the network policy lets talk
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_every_file_of_the_base_belongs_to_it() -> None:
    kustomization = load(BASE / "kustomization.yaml")
    named = {"kustomization.yaml", *kustomization["resources"], *kustomization["configurations"]}
    assert {path.name for path in BASE.iterdir()} == named


def _refuse_unknown(schema: Any) -> None:
    """Make a structural schema refuse fields that it does not have, as `kubectl apply` does."""
    for inner in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(inner, dict | list):
            _refuse_unknown(inner)
    if isinstance(schema, dict):
        if schema.get("x-kubernetes-int-or-string"):
            schema.pop("type", None)
        if "properties" in schema and schema.get("type") == "object":
            schema.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields")))
