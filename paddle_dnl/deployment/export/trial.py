# SPDX-License-Identifier: Apache-2.0
"""Runs exported graphs in a child process, so that a crash of native code does not end the export.

This module is also the child's program: `python -m paddle_dnl.deployment.export.trial JOBS PARENT`, where JOBS is a JSON file.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from paddle_dnl.deployment.runtime.backends.onnx_backend import OnnxBackend
from paddle_dnl.deployment.runtime.backends.openvino_backend import OpenvinoBackend
from paddle_dnl.deployment.runtime.backends.paddle_backend import PaddleBackend
from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.errors import PaddleDnlError
from paddle_dnl.log import logger
from paddle_dnl.startup import child_processes, configure_process

import numpy as np

# oneDNN may hang while it compiles a graph; the backend then counts as not verified.
LIMIT_SECONDS = 900
# Other names are settings of Paddle Inference.
_BACKENDS = {OnnxBackend.name: OnnxBackend, "onnxruntime_fp16": OnnxBackend, OpenvinoBackend.name: OpenvinoBackend}


class Trial:
    """Outputs of each graph in each backend.

    Args:
        graphs: name -> graph, in the order of execution.
        backends: name -> options; `onnxruntime`, `onnxruntime_fp16`, `openvino`, other names mean Paddle Inference. Run in
            this order, so that a crash does not affect earlier ones.
        batches: inputs `[N, C, H, W]`.
        work: an empty folder for files exchanged between the processes.
        optional: names of backends that are killed after `LIMIT_SECONDS`.

    Attributes:
        errors: (backend, graph) -> one line for each failed run: the backend's error, or how the process ended.
    """

    def __init__(
        self,
        graphs: dict[str, DeployConfig],
        backends: dict[str, BackendOptions],
        batches: list[np.ndarray],
        work: Path,
        optional: tuple[str, ...] = (),
    ):
        self._work = work
        self.errors: dict[tuple[str, str], str] = {}
        for i, batch in enumerate(batches):
            np.save(work / f"batch{i}.npy", batch)
        jobs = [
            {
                "key": [backend, graph], "folder": str(files.folder), "model": files.model, "params": files.params,
                "onnx": files.onnx, "onnx_fp16": files.onnx_fp16, "input_shape": files.input_shape,
                "options": asdict(options), "count": len(batches),
            }
            for backend, options in backends.items()
            for graph, files in graphs.items()
        ]  # fmt: skip
        (work / "jobs.json").write_text(json.dumps(jobs))
        self._run([tuple(job["key"]) for job in jobs], optional)

    def _run(self, keys: list[tuple[str, str]], optional: tuple[str, ...]) -> None:
        command = child_processes.module_command(__name__, str(self._work / "jobs.json"), str(os.getpid()))
        late = None
        with (
            open(self._work / "errors.txt", "w+", errors="replace") as said,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as process,
        ):
            try:
                with contextlib.ExitStack() as limit:
                    waiting = list(keys)
                    for line in process.stdout:
                        if not line.startswith("{"):  # output of a library
                            continue
                        answer = json.loads(line)
                        waiting.remove(tuple(answer["key"]))
                        if answer["error"]:
                            self.errors[tuple(answer["key"])] = answer["error"]
                        if late is None and waiting and waiting[0][0] in optional:
                            late = limit.enter_context(child_processes.killed_after(process, LIMIT_SECONDS))
                    status = process.wait()
            finally:
                process.kill()
            said.seek(0)
            if late is not None and late.is_set():
                how = f"not done within {LIMIT_SECONDS} s"
            elif status < 0:
                how = f"the process was ended by {signal.Signals(-status).name}"
            else:
                lines = [line.strip() for line in said if line.strip()]
                how = f"the process ended with status {status}{': ' + lines[-1] if lines else ''}"
            self.errors |= dict.fromkeys(waiting, how)

    def output(self, backend: str, graph: str, batch: int) -> np.ndarray:
        """The output for one batch; exists only if `errors` has no entry."""
        return np.load(self._work / f"{backend}-{graph}-{batch}.npy")


def main() -> None:
    """Program of the child: runs all jobs and prints a JSON line for each."""
    child_processes.die_with(int(sys.argv[2]))
    child_processes.leave_signals_to_parent()
    logger.disabled = True
    configure_process()
    path = Path(sys.argv[1])
    for job in json.loads(path.read_text()):
        error = None
        try:
            names = ("model", "params", "onnx", "onnx_fp16", "input_shape")
            files = DeployConfig(Path(job["folder"]), **{name: job[name] for name in names})
            backend = _BACKENDS.get(job["key"][0], PaddleBackend)(files, BackendOptions(**job["options"]))
            for i in range(job["count"]):
                result = backend.run(np.load(path.parent / f"batch{i}.npy"))
                np.save(path.parent / f"{'-'.join(job['key'])}-{i}.npy", result)
        except (PaddleDnlError, OSError) as problem:
            error = str(problem)
        print(json.dumps({"key": job["key"], "error": error}), flush=True)


if __name__ == "__main__":
    main()
