"""Starts the service: settings, engine, a first run, then the port; SIGTERM and Ctrl-C finish what is in the house."""

import signal
import threading

from paddle_dnl.deployment.runtime.backend_process import EngineProcess
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger

import numpy as np
import uvicorn
from tqdm import tqdm

from .app import create_app
from .settings import Settings

# A first run of models with a free size is made with this one.
_WARM_UP = (256, 256)


def load(settings: Settings) -> Predictor:
    """The model, with its engine in another process, after a first run (which takes longer than later ones).

    Raises:
        ConfigError, ExportError, UsageError: a folder or setting that cannot be used.
    """
    engine = EngineProcess(
        settings.model,
        settings.engine,
        time_limit=settings.request_seconds,
        device=settings.device,
        cpu_threads=settings.cpu_threads,
        enable_mkldnn=settings.enable_mkldnn,
    )
    predictor = Predictor(settings.model, engine=engine, wrong_size=settings.wrong_size, max_pixels=settings.max_pixels)
    channels = 1 if (predictor.files.input_shape or [None, 3])[1] == 1 else 3
    height, width = predictor.files.fixed_size or _WARM_UP
    predictor.run(np.zeros((1, channels, height, width), np.float32))
    return predictor


class _Server(uvicorn.Server):
    """Says where it listens, with the port that was chosen for 0."""

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            logger.info(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}")


def serve(settings: Settings) -> int:
    """Serves until a signal; returns the exit status.

    Raises:
        ConfigError, ExportError, UsageError: a folder, setting or address that cannot be used.
    """
    # The log's own lock is one between processes, which Python would report as left behind.
    tqdm.set_lock(threading.RLock())

    def stop_early(*_):
        # Before the server takes the signals over there is nothing to finish; afterwards it hands them on to here.
        if not server or not server.started:
            raise SystemExit(0)

    server = None
    signal.signal(signal.SIGTERM, stop_early)
    predictor = load(settings)
    config = uvicorn.Config(
        create_app(predictor, settings),
        host=settings.host,
        port=settings.port,
        access_log=settings.access_log,
        log_level="warning" if not settings.access_log else "info",
        timeout_graceful_shutdown=settings.stop_seconds,
        server_header=False,
    )
    server = _Server(config)
    try:
        server.run()
    except SystemExit as ended:
        if ended.code:
            raise UsageError(f"--host {settings.host} --port {settings.port}: cannot listen there") from ended
    except KeyboardInterrupt:
        # The server has finished its requests and hands the signal on.
        pass
    finally:
        predictor.close()
    return 0
