# SPDX-License-Identifier: Apache-2.0
"""Starts the service: loads the models, runs each once and listens; SIGTERM and Ctrl-C finish the admitted requests."""

import logging
import os
import signal
import ssl
import threading
from pathlib import Path

from paddle_dnl.addresses import is_loopback
from paddle_dnl.deployment.runtime.backend_process import BackendProcess
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger
from paddle_dnl.serving.app import create_app
from paddle_dnl.serving.guard import read_token
from paddle_dnl.serving.pipeline import WARM_UP
from paddle_dnl.serving.protocol import ConnectionLimits, RateLimit, limited_protocol
from paddle_dnl.serving.settings import Settings, find_models

import numpy as np
import uvicorn
from tqdm import tqdm

# File descriptors that the process needs besides connections.
_OWN_FILES = 64


def load(settings: Settings) -> dict[str, Predictor]:
    """Loads the models, each with a backend process, and runs each once, because the first run is slow.

    Returns:
        Name -> model.

    Raises:
        ConfigError, ExportError, UsageError: a folder or setting that cannot be used.
    """
    found: dict[str, Predictor] = {}
    try:
        for name, folder in find_models(settings.model).items():
            found[name] = _load(folder, settings)
            logger.info(f"model {name}: {folder}")
    except BaseException:
        _close(found)
        raise
    return found


def _load(folder: Path, settings: Settings) -> Predictor:
    backend = BackendProcess(
        folder,
        settings.backend,
        time_limit=settings.request_seconds,
        device=settings.device,
        cpu_threads=settings.cpu_threads,
        precision=settings.precision,
        streams=settings.streams,
        enable_mkldnn=settings.enable_mkldnn,
    )
    limits = {"wrong_size": settings.wrong_size, "tile": settings.tile, "max_pixels": settings.max_pixels}
    try:
        predictor = Predictor(folder, backend=backend, **limits)
        height, width = predictor.files.fixed_size or WARM_UP
        predictor.run(np.zeros((1, predictor.image_format.channels, height, width), np.float32))
    except BaseException:
        backend.close()
        raise
    return predictor


def _close(models: dict[str, Predictor]) -> None:
    for predictor in models.values():
        predictor.close()


class _Server(uvicorn.Server):
    """uvicorn's server, extended to log its address with the actual port."""

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            scheme = "https" if self.config.is_ssl else "http"
            logger.info(f"serving on {scheme}://{f'[{host}]' if ':' in host else host}:{port}")

    def handle_exit(self, sig: int, frame) -> None:
        """Finishes the admitted requests; a second Ctrl-C ends the process immediately."""
        if self.should_exit and sig == signal.SIGINT:
            logger.warning("interrupted again: pending requests are abandoned")
            os._exit(130)
        super().handle_exit(sig, frame)


def _require_certificate(settings: Settings) -> None:
    """Checks the certificate and its key.

    Raises:
        UsageError: only one of them is given, a file is missing, or they cannot be used.
    """
    pair = (settings.tls_certificate, settings.tls_key)
    if pair == (None, None):
        return
    if None in pair:
        raise UsageError("--tls_certificate and --tls_key must be given together")
    for name, path in zip(("tls_certificate", "tls_key"), pair, strict=True):
        if not path.is_file():
            raise UsageError(f"--{name} {path}: no such file")
    try:  # with an empty password, because OpenSSL would ask for one on the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*pair, password="")
    except (ssl.SSLError, OSError) as error:
        raise UsageError(
            f"--tls_certificate {pair[0]} --tls_key {pair[1]}: cannot be used ({error}); they must be PEM files of a "
            "certificate and of its private key without a password"
        ) from error


def serve(settings: Settings) -> int:
    """Runs the service until a signal; returns the exit status.

    Raises:
        ConfigError, ExportError, UsageError: a folder, setting or address that cannot be used.
    """
    _require_certificate(settings)
    read_token(settings.token_file)  # before the models are loaded
    if not is_loopback(settings.host) and settings.token_file is None:
        logger.warning(f"--host {settings.host}: requests from other machines need no token; set --token_file")
    for name in ("asyncio", "uvicorn.error"):
        logging.getLogger(name).addFilter(RateLimit())
    # The form parser logs a warning for every invalid form; the response already reports it.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    # Python would report tqdm's default lock, which is shared between processes, as leaked at exit.
    tqdm.set_lock(threading.RLock())

    def stop_early(*_):
        # Before the server starts there are no requests to finish; when it has stopped, it raises the signal again.
        if not server or not server.started:
            raise SystemExit(0)

    server = None
    signal.signal(signal.SIGTERM, stop_early)
    models = load(settings)
    app = create_app(models, settings)
    app.state.service.decoders.start()
    # Stays below the system's limit of open files.
    total = settings.max_connections
    try:
        import resource
    except ImportError:  # not on Windows
        pass
    else:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        total = max(1, min(total, files - _OWN_FILES))
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=settings.access_log,
        log_level="warning" if not settings.access_log else "info",
        timeout_graceful_shutdown=settings.stop_seconds,
        server_header=False,
        http=limited_protocol(ConnectionLimits(total, settings.max_connections_per_client, settings.header_seconds)),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    server = _Server(config)
    try:
        server.run()
    except SystemExit as ended:
        if ended.code:
            raise UsageError(f"--host {settings.host} --port {settings.port}: cannot listen there") from ended
    except KeyboardInterrupt:
        # The server has finished its requests and raised the signal again.
        pass
    finally:
        _close(models)
    return 0
