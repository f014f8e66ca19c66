# SPDX-License-Identifier: Apache-2.0
"""What the tests of the service share: the service's modules, a tiny model, and a service of its own process."""

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from paddle_dnl.deployment.export.exporter import export_model

import cv2
import httpx
import numpy as np
from default_signals import default_signals
from fastapi.testclient import TestClient
from PIL import Image
from tiny_export import CLASSES, NORMALIZE, ColorNet

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "deploy" / "serving" / "serve.py"


def export(folder: Path, shape=(1, 3, 32, 64), **more) -> Path:
    """A tiny model, exported."""
    more.setdefault("transforms", [dict(NORMALIZE)])
    export_model(ColorNet(), folder, input_shape=list(shape), class_info=CLASSES, **more)
    return folder


def client_of(app) -> TestClient:
    """A client that asks the service by a name that it answers to."""
    return TestClient(app, base_url="http://127.0.0.1")


def png(image, suffix=".png", *flags) -> bytes:
    """A picture's file content."""
    return cv2.imencode(suffix, image, list(flags))[1].tobytes()


def label_of(reply) -> np.ndarray:
    """The classes in an answer."""
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "image/png"
    return np.array(Image.open(io.BytesIO(reply.content)))


class Running:
    """A service in a process of its own, on a free port of this machine; ends with the `with` block."""

    def __init__(self, folder: Path, *flags):
        command = [sys.executable, str(PROGRAM), "--model", str(folder), "--port", "0", *map(str, flags)]
        environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1")
        self.process = subprocess.Popen(
            command,
            cwd="/",
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=default_signals,
        )
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"serving on (http://\S+)", line):
                self.address = found[1]
                break
        else:
            self.process.wait(30)
            raise AssertionError("".join(self.lines))
        # A proxy of the machine is not asked.
        self.client = httpx.Client(base_url=self.address, trust_env=False, timeout=60)

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        self.lines += self.process.stdout.readlines()
        return self.process.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
        self.process.stdout.close()
