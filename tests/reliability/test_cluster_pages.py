# SPDX-License-Identifier: Apache-2.0
"""docs/many_machines.md and deploy/cluster: the commands run on two network namespaces, the job files with stand-ins."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from paddle_dnl.training.checkpoints import checkpoint

import pytest
import yaml
from cluster_page import commands, with_values
from launching import HERE, PATHS, Started
from recording import make_config
from two_hosts import two_hosts

ROOT = HERE.parents[1]
CONFIG = "dnlnet_resnet50_os8_cityscapes_1024x512_80k"


def _for_tests(words: list[str], folder: Path) -> list[str]:
    """The words of a command with a small model, in a folder of the test, and one process in place of 8 GPUs."""
    values = {"--config": folder / "config.yml", "--save_dir": folder / "output", "--nproc_per_node": 1}
    more = ["--custom_imports", HERE / "norm_net.py", "--iters", 4, "--save_interval", 2, "--log_iters", 1]
    return [sys.executable, "-m", "paddle_dnl", *with_values(words, values)[1:], *map(str, more)]


def test_the_commands_for_two_machines(tmp_path):
    """As the page has them: the second machine first, names of hosts, logs of each; and once more to resume."""
    make_config(tmp_path)
    of_nodes = commands("Two machines by hand")
    assert [words[words.index("--rank") + 1] for words in of_nodes] == ["0", "1"]
    with two_hosts(tmp_path) as hosts:
        for times in (1, 2):
            nodes = {}
            for host in (1, 0):
                words = _for_tests(of_nodes[host], tmp_path)
                words += ["--iters", str(4 * times)]
                more = {"prefix": hosts.prefix(host), "logs": tmp_path / "log" / str(host), "environment": PATHS}
                nodes[host] = Started(words, [], tmp_path, **more)
            statuses = [nodes[host].wait(120) for host in (0, 1)]
            assert statuses == [0, 0], nodes[0].text()[-3000:] + nodes[1].text()[-3000:]
    text = (tmp_path / "log" / "0" / "workerlog.0").read_text()
    assert "resumed from" in text and "iter: 8/8" in text
    assert (tmp_path / "log" / "1" / "workerlog.0").is_file()
    assert checkpoint.find_resume("auto", tmp_path / "output").name == "iter_8"


SRUN = """#!/bin/bash
# Runs the command once for each machine, as srun does; the flags before it are its own.
while [[ "$1" == --* ]]; do
  case "$1" in --export=*) export "${1#--export=ALL,}" ;; esac
  shift
done
for node in $(seq 0 $((SLURM_NNODES - 1))); do SLURM_NODEID=$node "$@" & pids+=($!); done
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit $status
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$(dirname "$0")/requeued"; fi
"""


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [False, True])
def test_the_slurm_job(tmp_path, signalled):
    """Two launchers on this machine; after a signal the job is requeued, after its end it is not."""
    make_config(tmp_path)
    folder = tmp_path / "bin"
    folder.mkdir()
    launcher = f'#!/bin/bash\nexec {sys.executable} -m paddle_dnl "$1" --nproc_per_node 1 "${{@:2}}"\n'
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("paddle-dnl", launcher)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    iters, steps = ("1000", "1000") if signalled else ("4", "2")
    words = ["--config", tmp_path / "config.yml", "--custom_imports", HERE / "norm_net.py", "--iters", iters]
    words += ["--save_interval", steps, "--log_iters", "1", "--save_dir", tmp_path / "output", "--seed", "1"]
    variables = {"SLURM_NNODES": "2", "SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "node[0-1]"}
    variables |= PATHS | {"PATH": f"{folder}:{os.environ['PATH']}"}
    job = Started(
        ["bash", ROOT / "deploy" / "cluster" / "train.sbatch"],
        words,
        tmp_path,
        environment=variables,
        logs=tmp_path / "log" / "0",
    )
    if signalled:
        job.wait_for("iter: 3/1000")
        for pid in job.alive():  # as SLURM signals the steps of a job, not its script
            if b"paddle.distributed.launch" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                os.kill(pid, 15)
    status = job.wait(120)
    job.require_nothing_left()
    assert (status in (15, 143)) if signalled else status == 0, job.text()[-3000:]
    assert (folder / "requeued").exists() == signalled
    if signalled:
        assert (folder / "requeued").read_text() == "requeue 77\n"
        assert re.search(r"stopped by signal at iter \d+", job.text()), job.text()[-3000:]


def test_the_slurm_job_is_a_script():
    assert subprocess.run(["bash", "-n", ROOT / "deploy" / "cluster" / "train.sbatch"], check=False).returncode == 0


def test_the_kubernetes_job_fits_together():
    """Names that must agree; tests/serving/test_kubernetes.py compares the fields with the schemas of Kubernetes."""
    service, job = yaml.safe_load_all((ROOT / "deploy" / "cluster" / "kubernetes_job.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    words = shlex.split(container["args"][0])
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    assert words[:3] == ["exec", "paddle-dnl", "launch"]
    flags = dict(zip(words, words[1:], strict=False))
    assert flags["--nnodes"] == str(spec["completions"]) and flags["--rank"] == "$JOB_COMPLETION_INDEX"
    port = service["spec"]["ports"][0]["port"]
    assert flags["--master"] == f"{job['metadata']['name']}-0.{pod['subdomain']}:{port}"
    assert flags["--config"] == CONFIG and flags["--resume_model"] == "auto"
    assert pod["terminationGracePeriodSeconds"] >= 60
    mounts, volumes = container["volumeMounts"], pod["volumes"]
    assert {mount["name"] for mount in mounts} == {volume["name"] for volume in volumes}
    assert {"name": "shm", "mountPath": "/dev/shm"} in mounts
    assert next(volume for volume in volumes if volume["name"] == "shm")["emptyDir"]["medium"] == "Memory"
