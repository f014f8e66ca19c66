# SPDX-License-Identifier: Apache-2.0
"""Files for Kubernetes and the image without Paddle: schemas of Kubernetes, and names and numbers that must agree."""

import re
import shlex
from pathlib import Path

from paddle_dnl.serving.guard import OPEN_PATHS
from paddle_dnl.serving.metrics import Metrics
from paddle_dnl.serving.settings import PREFIX, Settings

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SERVING = ROOT / "deploy" / "serving"
FILES = [SERVING / "kubernetes.yaml", ROOT / "deploy" / "cluster" / "kubernetes_job.yaml"]


def _documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("version", ["1.33", "1.37"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_fields_are_those_of_kubernetes(path, version):
    for document in _documents(path):
        kubernetes_validate.validate(document, version, strict=True)
        broken = {**document, "spec": {**document["spec"], "replica": 1}}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, version, strict=True)


def test_the_parts_of_the_service_fit_together():
    found = {document["kind"]: document for document in _documents(SERVING / "kubernetes.yaml")}
    assert set(found) == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
    deployment, scaler = found["Deployment"], found["HorizontalPodAutoscaler"]["spec"]
    template = deployment["spec"]["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]
    (container,) = pod["containers"]
    for selector in (deployment["spec"]["selector"], found["PodDisruptionBudget"]["spec"]["selector"]):
        assert selector == {"matchLabels": labels}
    assert found["Service"]["spec"]["selector"] == labels
    (port,) = container["ports"]
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    # The number of pods is the autoscaler's, and a disruption leaves one of the fewest.
    assert "replicas" not in deployment["spec"]
    target = scaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert scaler["minReplicas"] > found["PodDisruptionBudget"]["spec"]["minAvailable"]
    metrics = Metrics()
    metrics.queue_length("a", lambda: 3)
    name = scaler["metrics"][0]["pods"]["metric"]["name"]
    assert re.search(rf'^{name}\{{model="a"\}} 3\.0$', metrics.text().decode(), re.M)
    # Probes bring no token.
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert all(probe["path"] in OPEN_PATHS and probe["port"] == port["name"] for probe in probes)
    values = {item["name"]: item["value"] for item in container["env"]}
    settings = Settings(**{name.removeprefix(PREFIX).lower(): value for name, value in values.items()})
    assert pod["terminationGracePeriodSeconds"] >= (
        settings.stop_seconds + container["lifecycle"]["preStop"]["sleep"]["seconds"]
    )
    limits = container["resources"]["limits"]
    assert settings.cpu_threads == int(limits["cpu"])
    assert 2 * settings.queue_size * settings.max_request_bytes < int(limits["memory"].removesuffix("Gi")) << 29
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    assert settings.model == [mounts["models"]] and str(settings.token_file.parent) == mounts["token"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    lines = (SERVING / "Dockerfile.cpu").read_text()
    assert f"ENV HOME={mounts['home']}" in lines and f"USER {pod['securityContext']['runAsUser']}" in lines
    assert f"SERVING_PORT={port['containerPort']}" in lines


def test_the_image_without_paddle_takes_what_is_there():
    text = (SERVING / "Dockerfile.cpu").read_text()
    for line in re.findall(r"^COPY (.+) \S+$", text, re.M):
        assert all((ROOT / name).exists() for name in shlex.split(line)), line
    for lock in re.findall(r"-r (\S+)", text):
        assert "paddlepaddle" not in (ROOT / lock).read_text(), lock
    variables = set(re.findall(rf"\b{PREFIX}(\w+)=", text))
    assert variables and {name.lower() for name in variables} <= set(Settings.model_fields)
