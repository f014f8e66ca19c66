# SPDX-License-Identifier: Apache-2.0
"""A wish to stop does not break a wait for other ranks."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# As a rank that waits: Paddle's store blocks in `recv` while three signals arrive, as the launcher sends them.
WAIT = """
import os, signal, socket, sys, threading, time
import paddle_dnl, paddle
from paddle_dnl.distributed.signals import StopSignal
with socket.create_server(("", 0)) as probe:
    port = probe.getsockname()[1]
Store = paddle.base.core.TCPStore
server, client = (Store("127.0.0.1", port, is_server, 1, 30) for is_server in (True, False))
stop = StopSignal()
def send():
    for _ in range(3):
        time.sleep(0.2)
        os.kill(os.getpid(), int(sys.argv[1]))
    server.set("late", "there")
threading.Thread(target=send).start()
print(bytes(client.get("late")).decode(), stop.seen)
"""


def test_waits_survive_signals():
    for number in ("15", "2"):
        run = subprocess.run([sys.executable, "-c", WAIT, number], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert run.stdout.strip().endswith("there True"), run.stdout + run.stderr
