# SPDX-License-Identifier: Apache-2.0
"""Downloads of start weights: checksums, cache, safe unpacking.

Used by train.py only. Evaluation, export and prediction read --model_path and need no network.
"""

import contextlib
import copy
import hashlib
import http.client
import os
import re
import shutil
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from paddle_dnl.distributed import collectives
from paddle_dnl.errors import DownloadError
from paddle_dnl.files.atomic import write_text
from paddle_dnl.files.caches import paddleseg_home, writable_cache
from paddle_dnl.files.reading import file_digest
from paddle_dnl.log import logger
from paddle_dnl.weights.archives import extract_weights

_WEIGHTS = (".pdparams", ".safetensors", ".pth")
_MAX_BYTES = 4 << 30
# Names that stay inside the folder and that all file systems accept.
_FOLDER = re.compile(r"\w[\w.+%~@=-]{0,199}")
_SLOWEST = 1024  # bytes per second, on average, once `timeout` has passed


def is_url(value) -> bool:
    """Whether a `pretrained` value is a URL."""
    return isinstance(value, str) and "://" in value


def default_cache() -> Path:
    """PaddleSeg's folder for pretrained weights."""
    return paddleseg_home() / "pretrained_model"


def cached_path(url: str, cache_dir: str | Path | None = None) -> Path:
    """Path of the weights of a URL in the cache: `resnet50/model.pdparams` for `resnet50.tar.gz`.

    Raises:
        DownloadError: not an http(s) URL with a file name.
    """
    parts = urlsplit(url)
    name = Path(parts.path).name
    if parts.scheme not in ("http", "https") or not name or name.startswith("."):
        raise DownloadError(f"pretrained: {url} is not an http or https address of a file")
    stem = name
    for ending in (".tar.gz", ".tgz", ".tar", ".zip", *_WEIGHTS):
        if name.endswith(ending):
            stem = name[: -len(ending)]
            break
    # PaddleSeg's URLs end in model.pdparams in a folder per model; the name of that folder is used.
    stem = stem if stem != "model" else Path(parts.path).parent.name or stem
    if not _FOLDER.fullmatch(stem):
        raise DownloadError(f"pretrained: {url}: {stem!r} is not a name for a folder of the cache; use another address")
    ending = next((ending for ending in _WEIGHTS if name.endswith(ending)), ".pdparams")
    kept = Path(stem) / f"model{ending}"
    if cache_dir is not None:
        return Path(cache_dir) / kept
    with contextlib.suppress(OSError, RuntimeError):  # a home that is not writable may have the weights already
        there = default_cache().expanduser() / kept
        if there.is_file():
            return there
    return writable_cache(default_cache()) / kept


def _download(url: str, to: Path, timeout: float) -> str:
    """Downloads to `to`; returns the SHA-256. A server that is too slow counts as one that does not answer."""
    digest, size, start = hashlib.sha256(), 0, time.monotonic()
    with urllib.request.urlopen(url, timeout=timeout) as response, open(to, "wb") as file:
        schemes = ("https",) if url.startswith("https:") else ("http", "https")
        if urlsplit(response.url).scheme not in schemes:
            raise DownloadError(f"it leads to {response.url}, which is not {' or '.join(schemes)}")
        expected = response.headers.get("Content-Length")
        while chunk := response.read1(1 << 16):
            size += len(chunk)
            if size > _MAX_BYTES:
                raise DownloadError(f"it is larger than {_MAX_BYTES} bytes")
            elapsed = time.monotonic() - start
            if elapsed > timeout and size < _SLOWEST * elapsed:
                raise DownloadError(f"only {size} bytes came in {elapsed:.0f} seconds")
            digest.update(chunk)
            file.write(chunk)
    if expected is not None and size != int(expected):
        raise DownloadError(f"the connection ended after {size} of {expected} bytes")
    if size == 0:
        raise DownloadError("the answer is empty")
    return digest.hexdigest()


def _digest_in_name(url: str) -> str:
    """Start of the SHA-256 in a name by PyTorch's convention, `resnet50_v1c-2cccc1ad.pth`; empty without one."""
    match = re.search(r"-([0-9a-f]{8,64})\.pth$", urlsplit(url).path)
    return match[1] if match else ""


def _is_cached(target: Path, url: str, sha256: str | None) -> bool:
    """Whether `target` holds the weights of this URL; a file without a `.source` note was put there by the user.

    The checksum is that of the downloaded file and can be compared unless that was an archive.
    """
    if not target.is_file():
        return False
    note = target.with_suffix(".source")
    if note.is_file() and note.read_text(encoding="utf-8").strip() != url:
        logger.info(f"{target} is of another address; fetching {url} in its place")
        return False
    if sha256 and urlsplit(url).path.endswith(_WEIGHTS):
        if file_digest(target) != sha256.lower():
            logger.warning(f"{target} has not the SHA-256 {sha256}; fetching it again")
            return False
    return True


def _fill_cache(target: Path, url: str, sha256: str | None, timeout: float) -> None:
    """Downloads to a temporary folder beside `target`, checks, unpacks and renames."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=".download_"))
    try:
        weights = work / "body"
        found = _download(url, weights, timeout)
        if sha256 and found != sha256.lower():
            raise DownloadError(f"its SHA-256 is {found}, expected {sha256}")
        if not found.startswith(_digest_in_name(url)):
            raise DownloadError(f"its SHA-256 is {found}, its name says {_digest_in_name(url)}...")
        if not urlsplit(url).path.endswith(_WEIGHTS):
            weights = work / "weights"
            extract_weights(work / "body", weights, _MAX_BYTES)
        # In this order an interruption never leaves weights with the source note of another file.
        target.unlink(missing_ok=True)
        write_text(target.with_suffix(".source"), url + "\n", own=True)
        os.replace(weights, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def fetch(
    url: str,
    sha256: str | None = None,
    cache_dir: str | Path | None = None,
    timeout: float = 60.0,
    key: str = "model.backbone.pretrained",
) -> Path:
    """The local weights file of a URL, downloaded only when it is not in the cache.

    Args:
        url: http(s) address of .pdparams, .safetensors, .pth, or a .tar, .tar.gz or .zip that holds one .pdparams.
        sha256: of the downloaded file, in hexadecimal; None where it is not known.
        cache_dir: default `$SEG_HOME/pretrained_model`, or `~/.paddleseg/pretrained_model`.
        timeout: seconds without an answer, or with hardly any progress, until it fails.
        key: key of the configuration, for the advice in an error.

    Raises:
        DownloadError: no connection, wrong status, short or wrong content; names the path to put the file at by hand.
    """
    target = cached_path(url, cache_dir)
    try:
        if not _is_cached(target, url, sha256):
            logger.info(f"downloading {url}")
            _fill_cache(target, url, sha256, timeout)
    except (OSError, ValueError, http.client.HTTPException, DownloadError) as error:
        reason = " ".join(str(getattr(error, "reason", None) or error or type(error).__name__).split())
        if getattr(error, "code", None):
            reason = f"HTTP status {error.code}, {reason}"
        raise DownloadError(
            f"{url} could not be fetched: {reason}. Get the file by other means and give it with --pretrained FILE, which "
            f"converts it (tools/convert_weights.py does so once for all), or put its weights at {target}, or train from "
            f"scratch on purpose with --from_scratch or --opts {key}=null"
        ) from error
    return target


def resolve_pretrained(model_cfg: dict, sha256: dict[str, str] | None = None) -> dict:
    """A copy of a `model` section with URLs replaced by local files, which one rank of each machine downloads.

    Args:
        model_cfg: may name URLs in `pretrained` and `backbone.pretrained`.
        sha256: URL to checksum.

    Raises:
        DownloadError: on every rank, if a file could not be fetched on any.
    """
    cfg = copy.deepcopy(model_cfg)
    places = {"model.pretrained": cfg}
    if isinstance(cfg.get("backbone"), dict):
        places["model.backbone.pretrained"] = cfg["backbone"]
    # The first rank of each machine downloads, since the cache is a folder of the machine.
    _, index, _ = collectives.place_on_machine()
    for key, place in places.items():
        url = place.get("pretrained")
        if not is_url(url):
            continue
        problem = None
        if index == 0:
            try:
                fetch(url, (sha256 or {}).get(url), key=key)
            except Exception as error:  # any error must be reported to the other ranks, which wait for the result
                problem = str(error) or type(error).__name__
        problems = [text for text in collectives.all_gather_object(problem) if text]
        if problems:
            raise DownloadError(problems[0])
        place["pretrained"] = str(cached_path(url))
    return cfg
