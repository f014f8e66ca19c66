# SPDX-License-Identifier: Apache-2.0
"""Runs chunks on Ray Data: a pool of actors with one worker each; a dead actor is restarted and its chunk repeated.

The driver of Ray is a child process. An exception that a signal raises inside Ray can leave a lock taken, and Ray's native
handler of SIGTERM aborts the process; here signals only reach the program, which kills the driver.
"""

import contextlib
import logging
import math
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from paddle_dnl.deployment.bulk.chunks import Plan, unpack
from paddle_dnl.errors import ExportError, PaddleDnlError, UsageError, revived, sendable
from paddle_dnl.optional import not_installed
from paddle_dnl.startup import child_processes

# Blocks of Ray Data; each has one or more chunks.
_MOST_BLOCKS = 4096
_CONNECT_SECONDS = 10
_END_SECONDS = 60


@dataclass(frozen=True)
class Cluster:
    """Options of the Ray cluster.

    Attributes:
        address: of a Ray cluster, `auto` for the one that this machine belongs to; None starts one on this machine.
        actors: most actors; None for as many as the cluster has room for.
        cpus, gpus: that each actor reserves.
    """

    address: str | None = None
    actors: int | None = None
    cpus: float = 1
    gpus: float = 0


class _Actor:
    """What Ray Data calls with a batch of one chunk."""

    def __init__(self, make_worker: Callable):
        import ray

        self._worker = make_worker()
        self._node = ray.get_runtime_context().get_node_id()

    def __call__(self, batch: dict) -> dict:
        reports = [self._worker.run(unpack(packed)) | {"node": self._node} for packed in batch["chunk"]]
        return {"report": [pickle.dumps(report) for report in reports]}


def require_ray() -> None:
    """Raises UsageError if Ray Data is not installed."""
    try:
        import ray
        import ray.data  # noqa: F401
    except ImportError as error:
        raise not_installed("predict-dataset", error, "ray") from error


@contextlib.contextmanager
def _connected(cluster: Cluster) -> Iterator:
    """Connects Ray for the block and yields its module.

    Raises:
        UsageError: no cluster can be reached.
    """
    host, colon, port = (cluster.address or "").rpartition(":")
    if colon and "/" not in host and port.isdigit():  # Ray itself would try for minutes to reach HOST:PORT
        try:
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            text = f"--address {cluster.address}: no Ray cluster can be reached there ({error})"
            raise UsageError(text) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    import ray

    local = {} if cluster.address else {"include_dashboard": False}
    try:
        try:
            ray.init(address=cluster.address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
        except (ray.exceptions.RayError, ConnectionError, ValueError, RuntimeError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(f"--address {cluster.address}: no Ray cluster can be reached there ({text})") from error
        yield ray
    finally:
        ray.shutdown()


def run(plan: Plan, make_worker: Callable, cluster: Cluster) -> Iterator[dict]:
    """Yields the report of each chunk, with its `node`, in the order of completion.

    Args:
        plan: the chunks.
        make_worker: called in each actor, so that it must be picklable; makes an object whose `run(chunk)` gives a report.
        cluster: where the actors run.

    Raises:
        UsageError: Ray is not installed, no cluster can be reached, or it has no room for an actor.
        ExportError: an actor died again and again.
    """
    require_ray()
    driver, connection = child_processes.start_connected(
        _drive, plan, make_worker, cluster, name="Ray driver", daemon=False
    )
    try:
        while True:
            kind, value = connection.recv()
            if kind == "end":
                driver.join(_END_SECONDS)  # at its exit Ray ends its own processes
                return
            if kind != "report":
                raise revived(kind, value)
            yield value
    except EOFError as error:
        raise ExportError(f"Ray: its driver process ended {child_processes.how_it_ended(driver)}") from error
    finally:
        driver.kill()
        driver.join()


def _drive(connection, parent: int, *arguments) -> None:
    """Main function of the child process: sends the reports, then `end`; or an error that ended them."""
    with child_processes.working_for(parent):
        try:
            for report in _reports(*arguments):
                connection.send(("report", report))
            connection.send(("end", None))
        except PaddleDnlError as error:
            connection.send(sendable(error))


def _reports(plan: Plan, make_worker: Callable, cluster: Cluster) -> Iterator[dict]:
    """As `run`, in this process; Ray is shut down at the end."""
    with _connected(cluster) as ray:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        resources = ray.cluster_resources()
        cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
        room = min(
            cpus // cluster.cpus if cluster.cpus else math.inf, gpus // cluster.gpus if cluster.gpus else math.inf
        )
        if room < 1:
            raise UsageError(
                f"the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs, and an actor needs {cluster.cpus:g} and "
                f"{cluster.gpus:g} (--cpus_per_actor, --gpus_per_actor)"
            )
        most = int(min(room, cluster.actors or math.inf, len(plan.packed)))
        items = [{"chunk": packed} for packed in plan.packed]
        dataset = ray.data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS)).map_batches(
            _Actor,
            fn_constructor_args=[make_worker],
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus or None,
        )
        try:
            for row in dataset.iter_rows():
                yield pickle.loads(row["report"])
        except ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise ExportError(f"Ray: {lines[-1] if lines else type(error).__name__}") from error
