"""Start weights that a configuration names by URL: fetched once, checked, cached, never unpacked blindly.

Only train.py calls this. Evaluation, export and prediction take their weights from --model_path and need no network.
"""

import copy
import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

from paddle_dnl.engine import distributed
from paddle_dnl.errors import DownloadError, PaddleDnlError
from paddle_dnl.log import logger

_MAX_BYTES = 4 << 30
_WEIGHTS = (".pdparams", ".safetensors")


def is_url(value) -> bool:
    """Whether a `pretrained` value names something to download."""
    return isinstance(value, str) and "://" in value


def default_cache() -> Path:
    """PaddleSeg's folder for pretrained weights."""
    return Path(os.environ.get("SEG_HOME", "~/.paddleseg")).expanduser() / "pretrained_model"


def cached_path(url: str, cache_dir: str | Path | None = None) -> Path:
    """Where the weights of a URL are kept: `resnet50.tar.gz` becomes `resnet50/model.pdparams`.

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
    # PaddleSeg names its own files alike (model.pdparams in a folder per model); the folder tells them apart.
    folder = Path(cache_dir or default_cache()) / (stem if stem != "model" else Path(parts.path).parent.name or stem)
    return folder / ("model.safetensors" if name.endswith(".safetensors") else "model.pdparams")


def _advice(url: str, target: Path) -> str:
    return (
        f"Put the weights of {url} at {target} yourself, or train from scratch with "
        "--opts model.backbone.pretrained=null"
    )


def _download(url: str, to: Path, timeout: float) -> str:
    """Writes the body to `to`; returns its SHA-256."""
    digest, size = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=timeout) as response, open(to, "wb") as file:
        expected = response.headers.get("Content-Length")
        while chunk := response.read(1 << 20):
            size += len(chunk)
            if size > _MAX_BYTES:
                raise DownloadError(f"more than {_MAX_BYTES} bytes")
            digest.update(chunk)
            file.write(chunk)
    if expected is not None and size != int(expected):
        raise DownloadError(f"the connection ended after {size} of {expected} bytes")
    if size == 0:
        raise DownloadError("the answer is empty")
    return digest.hexdigest()


def _copy_limited(source, to: Path) -> None:
    """Copies a stream out of an archive; an archive may promise less than it holds."""
    size = 0
    with open(to, "wb") as file:
        while chunk := source.read(1 << 20):
            size += len(chunk)
            if size > _MAX_BYTES:
                raise DownloadError(f"the weights in it are larger than {_MAX_BYTES} bytes")
            file.write(chunk)


def extract_weights(archive: Path, to: Path) -> None:
    """Copies the one weights file of a tar or zip archive to `to`; no path from the archive is ever used.

    Raises:
        DownloadError: not an archive, or not exactly one regular file of weights in it.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as bundle:
                names = [i for i in bundle.infolist() if i.filename.endswith(_WEIGHTS) and not i.is_dir()]
                _require_one([i.filename for i in names], archive)
                with bundle.open(names[0]) as source:
                    _copy_limited(source, to)
        else:
            with tarfile.open(archive) as bundle:
                members = [m for m in bundle if m.isreg() and m.name.endswith(_WEIGHTS)]
                _require_one([m.name for m in members], archive)
                _copy_limited(bundle.extractfile(members[0]), to)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise DownloadError(f"not a readable archive ({error})") from error


def _require_one(names: list[str], archive: Path) -> None:
    if len(names) != 1:
        raise DownloadError(f"the archive holds {len(names)} weights files; expected one ({', '.join(names[:3])})")


def fetch(url: str, sha256: str | None = None, cache_dir: str | Path | None = None, timeout: float = 60.0) -> Path:
    """The local weights file of a URL, downloaded only when it is not in the cache.

    Args:
        url: http(s) address of .pdparams, .safetensors, or a tar or zip that holds one.
        sha256: of the downloaded file, in hexadecimal; None where it is not known.
        cache_dir: default `$SEG_HOME/pretrained_model`, or `~/.paddleseg/pretrained_model`.
        timeout: seconds without an answer.

    Raises:
        DownloadError: no connection, wrong status, short or wrong content; says where to put the file instead.
    """
    target = cached_path(url, cache_dir)
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    logger.info(f"downloading {url}")
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=".download_"))
    try:
        found = _download(url, work / "body", timeout)
        if sha256 and found != sha256.lower():
            raise DownloadError(f"its SHA-256 is {found}, expected {sha256}")
        weights = work / "body"
        if not urlsplit(url).path.endswith(_WEIGHTS):
            weights = work / "weights"
            extract_weights(work / "body", weights)
        os.replace(weights, target)
    except (urllib.error.URLError, OSError, ValueError, DownloadError) as error:
        raise DownloadError(f"{url} could not be fetched: {error}. {_advice(url, target)}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def resolve_pretrained(model_cfg: dict, sha256: dict[str, str] | None = None) -> dict:
    """A copy of a `model` section with URLs replaced by local files; one rank downloads, all learn how it went.

    Args:
        model_cfg: may name URLs in `pretrained` and `backbone.pretrained`.
        sha256: URL to checksum.

    Raises:
        DownloadError: on every rank, when any file could not be fetched.
    """
    cfg = copy.deepcopy(model_cfg)
    places = [cfg] + ([cfg["backbone"]] if isinstance(cfg.get("backbone"), dict) else [])
    for place in places:
        url = place.get("pretrained")
        if is_url(url):
            path, problem = None, None
            if distributed.is_main():
                try:
                    path = str(fetch(url, (sha256 or {}).get(url)))
                except PaddleDnlError as error:
                    problem = str(error)
            path, problem = distributed.broadcast_object((path, problem))
            if problem:
                raise DownloadError(problem)
            place["pretrained"] = path
    return cfg
