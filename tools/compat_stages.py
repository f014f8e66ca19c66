# SPDX-License-Identifier: Apache-2.0
"""The stages of `tools/compat_report.py`: what is done with one configuration, ours and PaddleSeg's. Each runs in a child."""

import contextlib
import copy
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# ---------------------------------------------------------------------------------------------- children


def late(seconds: float) -> str:
    """The result of a step that was stopped."""
    return f"not done within {seconds:.0f} s"


def in_child(work, seconds: float) -> str:
    """Runs `work()` in a forked process of its own with a time limit.

    The parent has imported everything, so a child costs no import; it may crash.

    Returns:
        An empty string for success, else one line: the error, the signal that ended it, or the time limit.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "error"
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            os.setsid()  # so that its own children end with it
            status = 1
            try:
                with open(os.devnull, "w") as silent:
                    os.dup2(silent.fileno(), 1)
                    os.dup2(silent.fileno(), 2)
                said.write_text(_one_line(work))
                status = 0
            finally:
                os._exit(status)
        end = time.monotonic() + seconds
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() > end:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return late(seconds)
            time.sleep(0.02)
        if os.WIFSIGNALED(status):
            return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
        return said.read_text() if said.is_file() else f"exit status {os.WEXITSTATUS(status)}"


def _one_line(work) -> str:
    try:
        work()
    except SystemExit as error:
        return f"a component ended the program (exit status {error.code})"
    except BaseException as error:
        text = " ".join(str(error).split())
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if len(text) > 300 and lines:  # Paddle puts a traceback in front of what was wrong
            text = lines[-1] if len(lines[-1]) > 20 else " ".join(lines[-2:])
        return f"{type(error).__name__}: {text[:400]}"
    return ""


# ---------------------------------------------------------------------------------------------- load and build


def load(path: Path):
    """The configuration, read and checked."""
    from paddle_dnl.config import Config

    return Config(str(path))


def build(path: Path) -> None:
    """Model, losses, optimizer, schedule, transforms of both datasets; the data itself is not there."""
    from paddle_dnl import registry
    from paddle_dnl.losses import build_losses
    from paddle_dnl.models.build import build_model
    from paddle_dnl.optim import build_lr_scheduler, build_optimizer

    config = load(path)
    model = build_model(config)
    build_losses(config.loss_cfg)
    build_optimizer(config.optimizer_cfg, model, build_lr_scheduler(config.lr_scheduler_cfg, config.iters))
    for section in (config.train_dataset_cfg, config.val_dataset_cfg):
        for step in section.get("transforms", []):
            registry.build(step, "transform")


def _without_downloads() -> None:
    """Makes PaddleSeg take its start weights as read; for a child, which ends soon."""
    import paddle
    import paddleseg.utils
    from paddleseg.utils import utils

    utils.download_pretrained_model = lambda path: path
    paddle.load = lambda path, **_: {}
    for module in (utils, paddleseg.utils):
        for name in ("load_entire_model", "load_pretrained_model"):
            setattr(module, name, lambda model, pretrained: None)


def build_theirs(path: Path) -> None:
    """The same with PaddleSeg's own code; from 2.8 on it has a builder, before that the configuration builds."""
    from paddleseg.cvlibs import Config

    _without_downloads()
    config = Config(str(path))
    try:
        from paddleseg.cvlibs import SegBuilder
    except ImportError:
        try:
            from paddleseg.cvlibs.builder import SegBuilder
        except ImportError:
            SegBuilder = None  # noqa: N806
    holder = config if SegBuilder is None else SegBuilder(config)
    assert holder.model is not None
    assert holder.optimizer is not None
    assert holder.loss is not None
    load_object = getattr(holder, "build_component", None) or holder._load_object
    for key in ("train_dataset", "val_dataset"):
        for step in copy.deepcopy((config.dic.get(key) or {}).get("transforms") or []):
            load_object(step)


# ---------------------------------------------------------------------------------------------- chain


def tiny_data(folder: Path, classes: int, channels: int, size: tuple[int, int]) -> dict:
    """Four pictures of blobs with labels; returns a `Dataset` section for them."""
    import cv2

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(4):
        label = rng.integers(0, classes, (size[1] // 16, size[0] // 16)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
        picture = (label[..., None] * 37 % 200 + rng.integers(0, 50, (*label.shape, 3))).astype(np.uint8)
        if channels == 3:
            cv2.imwrite(str(folder / f"{i}.png"), picture)
        else:
            np.save(folder / f"{i}.npy", rng.random((*label.shape, channels), np.float32))
        cv2.imwrite(str(folder / f"{i}_label.png"), label)
        lines.append(f"{i}.{'png' if channels == 3 else 'npy'} {i}_label.png\n")
    (folder / "list.txt").write_text("".join(lines))
    return {"type": "Dataset", "dataset_root": str(folder), "num_classes": classes}


def _ignored(config) -> int | None:
    """The ignored label, on which datasets and losses of a checked configuration agree."""
    losses = [inner for item in config.loss_cfg["types"] for inner in item.get("losses", [item])]
    return next((loss["ignore_index"] for loss in losses if "ignore_index" in loss), None)


# Transforms that make what a model's losses take beside the label.
_TARGETS = ("GenerateInstanceTargets", "AddEdgeLabel")


def tiny_config(path: Path, folder: Path, size: tuple[int, int], iters: int = 2) -> Path:
    """The configuration's model, losses, optimizer and schedule on tiny data, without start weights."""
    from paddle_dnl.config.reading import to_yaml

    config = load(path)
    dic = copy.deepcopy(config.dic)
    classes = dic["model"].get("num_classes") or dic["train_dataset"].get("num_classes") or 19
    backbone = dic["model"].get("backbone")
    holder = backbone if isinstance(backbone, dict) else dic["model"]
    channels = holder.get("in_channels", dic["train_dataset"].get("img_channels", 3))
    data = tiny_data(folder / "data", classes, channels if isinstance(channels, int) else 3, size)
    if _ignored(config) is not None:
        data["ignore_index"] = _ignored(config)
    for section in (dic["model"], backbone):
        if isinstance(section, dict):
            section.pop("pretrained", None)
    listed = f"{data['dataset_root']}/list.txt"
    normalise = {"type": "Normalize"}
    if isinstance(channels, int) and channels != 3:
        data["img_channels"] = channels
        normalise |= {"mean": [0.5] * channels, "std": [0.5] * channels}
    edge = {"edge": True} if dic["train_dataset"].get("edge") else {}
    targets = [step for step in dic["train_dataset"].get("transforms", []) if step["type"] in _TARGETS]
    dic["train_dataset"] = {**data, **edge, "mode": "train", "train_path": listed, "transforms": [normalise, *targets]}
    dic["val_dataset"] = {**data, "mode": "val", "val_path": listed, "transforms": [normalise]}
    dic |= {"iters": iters, "batch_size": 2}
    dic.pop("test_config", None)
    dic.pop("export", None)
    made = folder / path.name
    made.write_text(to_yaml(dic))
    return made


def train(config: Path, folder: Path, size) -> None:
    """Two steps by train.py."""
    from paddle_dnl.cli import train as program

    random.seed(0)
    program.main(["--config", str(config), "--save_dir", str(folder / "output"), "--device", "cpu", "--log_iters", "1"])


def _weights(folder: Path) -> str:
    return str(folder / "output" / "iter_2" / "model.pdparams")


def val(config: Path, folder: Path, size) -> None:
    """Evaluation by val.py."""
    from paddle_dnl.cli import val as program

    program.main(["--config", str(config), "--model_path", _weights(folder), "--device", "cpu"])


def export(config: Path, folder: Path, size) -> None:
    """export.py, at one size."""
    from paddle_dnl.cli import export as program

    given = ["--config", str(config), "--model_path", _weights(folder), "--save_dir", str(folder / "exported")]
    channels = load(config).train_dataset_cfg.get("img_channels", 3)
    program.main([*given, "--input_shape", "1", str(channels), str(size[1]), str(size[0])])


def infer(config: Path, folder: Path, size) -> None:
    """deploy/python/infer.py."""
    from paddle_dnl.cli import infer as program

    pictures = sorted((folder / "data").glob("?.png")) or sorted((folder / "data").glob("?.npy"))
    given = ["--config", str(folder / "exported" / "deploy.yaml"), "--image_path", str(pictures[0])]
    program.main([*given, "--save_dir", str(folder / "inferred"), "--device", "cpu"])
    if not list((folder / "inferred").rglob("*.png")):
        raise RuntimeError("no result was written")


def _theirs(config: Path):
    from paddleseg.cvlibs import Config
    from paddleseg.cvlibs.builder import SegBuilder

    _without_downloads()
    return SegBuilder(Config(str(config)))


def train_theirs(config: Path, folder: Path, size) -> None:
    """Two steps by PaddleSeg's own loop."""
    import paddleseg.core

    builder = _theirs(config)
    paddleseg.core.train(
        builder.model, builder.train_dataset, optimizer=builder.optimizer, losses=builder.loss, iters=2, batch_size=2,
        save_dir=str(folder / "theirs"),
    )  # fmt: skip


def val_theirs(config: Path, folder: Path, size) -> None:
    """PaddleSeg's own evaluation, with the weights of the start."""
    import paddleseg.core

    builder = _theirs(config)
    paddleseg.core.evaluate(builder.model, builder.val_dataset)


def export_theirs(config: Path, folder: Path, size) -> None:
    """PaddleSeg's own export, at one size."""
    import paddle
    from paddleseg.deploy.export import WrappedModel

    os.environ["PADDLESEG_EXPORT_STAGE"] = "True"
    model = WrappedModel(_theirs(config).model, "argmax")
    model.eval()
    spec = [paddle.static.InputSpec(shape=[1, 3, size[1], size[0]], dtype="float32")]
    paddle.jit.save(paddle.jit.to_static(model, input_spec=spec), str(folder / "theirs" / "model"))


THEIRS = {"train": train_theirs, "val": val_theirs, "export": export_theirs}
CHAIN = {"train": train, "val": val, "export": export, "infer": infer}
