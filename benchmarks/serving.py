# SPDX-License-Identifier: Apache-2.0
"""The HTTP service under load, beside the bare backend: errors, latency, throughput, memory.

python benchmarks/serving.py --model output/quickstart/inference_model
python benchmarks/serving.py --model FOLDER --clients 16 --seconds 120 --flags --queue_size 8

Everything stays on this machine: clients and service talk over 127.0.0.1. The bare backend is timed before and after, so that
a machine that changes its speed is noticed.
"""

import argparse
import http.client
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

# Targets of the service; the table says whether they were met.
THROUGHPUT, LATENCY_FACTOR, MEMORY = 0.9, 3.0, 0.05


def make_picture(size: tuple[int, int]) -> bytes:
    """A PNG of coloured clouds, of (height, width)."""
    import cv2
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    clouds = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 9), None, 0, 255, cv2.NORM_MINMAX)
    return cv2.imencode(".png", clouds)[1].tobytes()


def backend_alone(model: Path, picture: bytes, batch: int, seconds: float) -> dict:
    """Runs of the backend with nothing around it; in a process of its own, called through `--backend_alone`."""
    command = [
        sys.executable,
        __file__,
        "--backend_alone",
        str(batch),
        "--model",
        str(model),
        "--seconds",
        str(seconds),
    ]
    done = subprocess.run(command, input=picture, capture_output=True)
    if done.returncode:
        raise SystemExit(f"the bare backend failed:\n{done.stderr.decode()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _backend_worker(model: Path, batch: int, seconds: float) -> None:
    import paddle_dnl
    from paddle_dnl.startup import configure_process

    import numpy as np

    configure_process()  # as the backend of the service does
    predictor = paddle_dnl.Predictor(model)
    tensor, _ = predictor.preprocess(predictor.decode(sys.stdin.buffer.read()))
    inputs = np.stack([tensor] * batch)
    for _ in range(2):
        predictor.run(inputs)
    taken, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        predictor.run(inputs)
        taken.append(time.perf_counter() - began)
    print(
        json.dumps(
            {"seconds_per_batch": statistics.median(taken), "pictures_per_second": batch * len(taken) / sum(taken)}
        )
    )


class Service:
    """The service in a process of its own."""

    def __init__(self, model: Path, flags: list[str]):
        program = ROOT / "deploy" / "serving" / "serve.py"
        self.process = subprocess.Popen(
            [sys.executable, str(program), "--model", str(model), "--port", "0", *flags],
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ, PYTHONUNBUFFERED="1"),
        )
        for line in self.process.stdout:
            if found := re.search(r"serving on http://([\d.]+):(\d+)", line):
                self.host, self.port = found[1], int(found[2])
                return
        raise SystemExit("the service did not start")

    def memory(self) -> int:
        """Resident bytes of the service and its backend."""
        import psutil

        main = psutil.Process(self.process.pid)
        return sum(process.memory_info().rss for process in (main, *main.children(recursive=True)))

    def ask(self, path: str) -> bytes:
        """GET."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        connection.request("GET", path)
        return connection.getresponse().read()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        self.process.stdout.read()
        return self.process.wait(120)


class Load:
    """Clients that each send the next picture as soon as the last is answered."""

    def __init__(self, service: Service, picture: bytes, clients: int, seconds: float):
        self.answers: list[tuple[str, float, float]] = []
        self._service, self._picture = service, picture
        self.began = time.perf_counter()
        self._end = self.began + seconds
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _client(self) -> None:
        connection = http.client.HTTPConnection(self._service.host, self._service.port, timeout=300)
        while time.perf_counter() < self._end:
            began = time.perf_counter()
            try:
                connection.request("POST", "/v1/label", self._picture, {"Content-Type": "image/png"})
                answer = connection.getresponse()
                answer.read()
                status = str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__
                connection.close()
            now = time.perf_counter()
            self.answers.append((status, now - began, now - self.began))
            if status == "429":
                time.sleep(0.05)

    def running(self) -> bool:
        """Whether a client is still at work."""
        return any(thread.is_alive() for thread in self._threads)


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _memory_by_minute(samples: list[tuple[float, int]]) -> list[float]:
    """Mean megabytes in the last quarter of each full minute."""
    minutes: dict[int, list[int]] = {}
    for second, size in samples:
        if second % 60 >= 45:
            minutes.setdefault(int(second // 60), []).append(size)
    return [statistics.mean(sizes) / 1e6 for _, sizes in sorted(minutes.items())]


def measure(args: argparse.Namespace, picture: bytes, before: dict) -> dict:
    """The service under load, and the backend alone after it."""
    service = Service(args.model, args.flags)
    model = json.loads(service.ask("/v1/model"))
    batch = min(model["max_batch"], args.clients)
    load = Load(service, picture, args.clients, args.seconds)
    samples = []
    while load.running():
        samples.append((time.perf_counter() - load.began, service.memory()))
        time.sleep(1)
    metrics = service.ask("/metrics").decode()
    status = service.stop()
    alone = [before, backend_alone(args.model, picture, batch, args.backend_seconds)]
    good = [(taken, end) for code, taken, end in load.answers if code == "200"]
    if not good:
        raise SystemExit(f"no request succeeded: {Counter(code for code, *_ in load.answers)}")
    runs = {
        name: float(re.search(rf"^{name}{{[^}}]*}} (\S+)", metrics, re.M)[1])
        for name in (
            "segmentation_batch_pictures_sum",
            "segmentation_batch_pictures_count",
            "segmentation_backend_seconds_sum",
        )
    }
    latency = statistics.mean(one["seconds_per_batch"] for one in alone)
    backend = statistics.mean(one["pictures_per_second"] for one in alone)
    inside = [taken for taken, _ in good]
    return {
        "clients": args.clients,
        "seconds": args.seconds,
        "statuses": dict(Counter(code for code, *_ in load.answers)),
        "exit_status": status,
        "batch": batch,
        "pictures_per_run": runs["segmentation_batch_pictures_sum"] / runs["segmentation_batch_pictures_count"],
        "backend_busy": runs["segmentation_backend_seconds_sum"] / max(end for _, end in good),
        "p50_seconds": _percentile(inside, 0.5),
        "p99_seconds": _percentile(inside, 0.99),
        "backend_batch_seconds": [one["seconds_per_batch"] for one in alone],
        "p99_bound_seconds": LATENCY_FACTOR * latency * math.ceil(args.clients / batch),
        "pictures_per_second": len(good) / max(end for _, end in good),
        "backend_pictures_per_second": [one["pictures_per_second"] for one in alone],
        "throughput_ratio": len(good) / max(end for _, end in good) / backend,
        "memory_megabytes": _memory_by_minute(samples),
    }


def table(found: dict) -> str:
    """Markdown."""
    errors = sum(n for code, n in found["statuses"].items() if code not in ("200", "429"))
    memory = found["memory_megabytes"]
    steps = [abs(b / a - 1) for a, b in zip(memory, memory[1:], strict=False)]
    backend, batch = ([f"{v:.3g}" for v in found[k]] for k in ("backend_pictures_per_second", "backend_batch_seconds"))
    rows = [
        ("answers", ", ".join(f"{n} x {code}" for code, n in sorted(found["statuses"].items())), "", ""),
        ("errors other than 429", errors, "0", errors == 0),
        ("p50, s", f"{found['p50_seconds']:.2f}", "", ""),
        ("p99, s", f"{found['p99_seconds']:.2f}", f"<= {found['p99_bound_seconds']:.2f}",
         found["p99_seconds"] <= found["p99_bound_seconds"]),
        (f"backend alone, s per batch of {found['batch']} (before, after)", ", ".join(batch), "", ""),
        ("pictures per run of the backend", f"{found['pictures_per_run']:.2f}", "", ""),
        ("share of the time in which the backend ran", f"{found['backend_busy']:.3f}", "", ""),
        ("service, pictures/s", f"{found['pictures_per_second']:.3g}", "", ""),
        ("backend alone, pictures/s (before, after)", ", ".join(backend), "", ""),
        ("service / backend", f"{found['throughput_ratio']:.2f}", f">= {THROUGHPUT}", found["throughput_ratio"] >= THROUGHPUT),
        ("memory at the end of each minute, MB", ", ".join(f"{v:.0f}" for v in memory), f"within {MEMORY:.0%}",
         max(steps) <= MEMORY if steps else "one minute only"),
        ("exit status after SIGTERM", found["exit_status"], "0", found["exit_status"] == 0),
    ]  # fmt: skip
    words = {True: "yes", False: "no"}
    lines = ["| | measured | target | met |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {a} | {b} | {c} | {words.get(d, d)} |" for a, b, c, d in rows)])


def main() -> None:
    """Measures, prints, and writes output/benchmarks/serving.{json,md}."""
    from paddle_dnl.cli._arguments import add_renamed

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="exported folder")
    parser.add_argument("--image", type=Path, help="default: a made picture of the model's size")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=120, help="of load; memory is compared from minute to minute")
    seconds = {"type": float, "default": 20, "help": "of the backend alone, before and after"}
    add_renamed(parser, "--backend_seconds", "--engine_seconds", **seconds)
    parser.add_argument("--backend_alone", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--save_dir", type=Path, default=ROOT / "output" / "benchmarks")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="the rest goes to the service")
    args = parser.parse_args()
    if args.backend_alone:
        return _backend_worker(args.model, args.backend_alone, args.seconds)
    import paddle_dnl  # noqa: F401  first: zlib before paddle
    from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
    from paddle_dnl.files.atomic import write_text
    from paddle_dnl.profile.measuring import machine

    files = read_deploy_config(args.model)
    picture = args.image.read_bytes() if args.image else make_picture(files.fixed_size or (256, 512))
    batch = files.fixed_batch or min(8, args.clients)
    before = backend_alone(args.model, picture, batch, args.backend_seconds)
    found = measure(args, picture, before) | {
        "machine": machine(),
        "threads": os.environ.get("OMP_NUM_THREADS", "unset"),
    }
    head = f"{found['machine']}, OMP_NUM_THREADS={found['threads']}, {args.clients} clients, {args.seconds:g} s"
    text = f"{head}\n\n{table(found)}\n"
    write_text(args.save_dir / "serving.json", json.dumps(found, indent=1))
    write_text(args.save_dir / "serving.md", text)
    print(text)


if __name__ == "__main__":
    main()
