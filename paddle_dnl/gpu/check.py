# SPDX-License-Identifier: Apache-2.0
"""Training, attention, several cards, resuming and export on a device, each compared with what it must equal.

Everything runs through the programs that users type (`paddle-dnl train`, `launch`, `export`), each in a process of its own with
a time limit, so that one failure or crash leaves the other checks.
"""

import json
import math
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from paddle_dnl.data.prepare.convert_cityscapes import convert_tree, official
from paddle_dnl.data.scenes.mini_cityscapes import generate
from paddle_dnl.errors import PaddleDnlError
from paddle_dnl.files.atomic import new_file, write_text
from paddle_dnl.gpu.limits import LARGEST_FLOAT16, end_of
from paddle_dnl.log import logger
from paddle_dnl.startup.child_processes import module_command, running_program
from paddle_dnl.training.records.run_records import SCALARS, read_table

# How far the mean loss of the last fifth of a training may be from float32's: half precision, and other summation orders.
PRECISION_LIMIT, ORDER_LIMIT = 0.10, 0.02


class _Failed(Exception):
    """A program failed or a figure is beyond its limit; the text says which."""


class _Skipped(Exception):
    """A check that this machine cannot run; the text says why."""


@dataclass
class Outcome:
    """What a check found.

    Args:
        name: of the check.
        status: PASS, FAIL or SKIP.
        text: one line.
        figures: everything that was measured.
    """

    name: str
    status: str
    text: str
    figures: dict = field(default_factory=dict)


class Bench:
    """The small training that most checks repeat with other flags.

    Args:
        folder: for everything that is written; must be new or empty.
        place: `gpu` or `cpu`.
        steps: of each training.
        crop: side of its images.
        time_limit: seconds for one program.
    """

    def __init__(self, folder: Path, place: str, steps: int, crop: int, time_limit: float):
        self.folder, self.place, self.steps, self.crop, self.time_limit = folder, place, steps, crop, time_limit
        self.config = folder / "config.yml"

    def prepare(self) -> None:
        """Writes scenes and configuration."""
        crop = self.crop
        official()  # before anything is written
        scenes = generate(self.folder / "data", train=16, val=2, size=(2 * crop, crop), seed=0)
        convert_tree(scenes, num_workers=1)
        text = json.dumps({
            "_base_": "dnlnet_resnet18_mini_cityscapes",
            "iters": self.steps,
            "train_dataset": {
                "dataset_root": str(scenes),
                "transforms": [{"type": "RandomPaddingCrop", "crop_size": [crop, crop]}, {"type": "Normalize"}],
            },
            "val_dataset": {"dataset_root": str(scenes)},
        })  # fmt: skip
        write_text(self.config, text)  # JSON is YAML

    def program(self, name: str, module: str, *words: str) -> str:
        """Runs a module to its end; its output is also in NAME.log.

        Raises:
            _Failed: exit status other than 0, with its last line; or it takes too long.
        """
        log = self.folder / f"{name}.log"
        streams = {"stderr": subprocess.STDOUT, "env": dict(os.environ, PADDLE_DNL_WAIT_SECONDS=str(self.time_limit))}
        # Into a file and no pipe: what a program says up to its limit is kept, and its children cannot keep a pipe open.
        with new_file(log) as temporary, open(temporary, "wb") as stream:
            with running_program(module_command(module, *words), stdout=stream, **streams) as process:
                try:
                    problem = f"exit status {status}" if (status := process.wait(self.time_limit)) else ""
                except subprocess.TimeoutExpired:
                    problem = f"not done in {self.time_limit:.0f} s"
        output = log.read_text(encoding="utf-8", errors="replace")
        if problem:
            said = [line for line in output.splitlines() if line.strip()]
            raise _Failed(f"{name}: {problem}: {said[-1] if said else 'no output'}")
        return output

    def train(self, name: str, *flags: str, launch: tuple[str, ...] = ()) -> list[float]:
        """The losses of a training's steps.

        Raises:
            _Failed: as `program`; or a loss is not finite.
        """
        to = self.folder / name
        words = ["--config", str(self.config), "--save_dir", str(to), "--log_iters", "1", "--seed", "1", *flags]
        words += ["--device", self.place]
        if "--save_interval" not in flags:
            words += ["--save_interval", str(self.steps)]
        self.program(name, "paddle_dnl", *launch, "train", *words)
        losses = list(read_table(to / SCALARS).get("Train/loss", {}).values())
        if not losses or not all(map(math.isfinite, losses)):
            raise _Failed(f"{name}: losses {losses[-3:]} are not finite")
        return losses

    def probe(self, name: str, **settings) -> dict:
        """What `paddle_dnl.gpu.probes` measures under that name."""
        text = self.program(name, "paddle_dnl.gpu.probes", name, json.dumps({"place": self.place, **settings}))
        return json.loads(text.strip().splitlines()[-1])

    @property
    def weights(self) -> Path:
        """Of the training in float32, which is the first check."""
        path = self.folder / f"fp32/iter_{self.steps}/model.pdparams"
        if not path.is_file():
            raise _Skipped("the training in fp32 did not end")
        return path


def _near(losses: list[float], reference: list[float], limit: float) -> tuple[str, dict]:
    """One line and the figures; the end of both curves must agree.

    Raises:
        _Failed: it does not.
    """
    distance = end_of(losses) / end_of(reference) - 1
    figures = {"losses": losses, "distance": distance}
    if abs(distance) > limit:
        raise _Failed(
            f"the loss ends at {end_of(losses):.4f} and must be within {limit:.0%} of {end_of(reference):.4f}"
        )
    return f"ends at {end_of(losses):.4f}, {distance:+.2%} (limit {limit:.0%})", figures


class Checks:
    """The checks in the order in which they run, by name: methods that return one line and figures.

    Args:
        bench: to run programs with.
    """

    def __init__(self, bench: Bench):
        self.bench, self._reference = bench, []
        self.device: dict = {}
        self.all: dict[str, Callable[[], tuple[str, dict]]] = {"device": self._device, "train fp32": self._fp32}
        for precision, level in (("fp16", "O1"), ("fp16", "O2"), ("bf16", "O1"), ("bf16", "O2")):
            self.all[f"train {precision} {level}"] = lambda p=precision, lv=level: self._half(p, lv)
        self.all |= {
            "attention": self._attention,
            "logits": self._logits,
            "cards": self._cards,
            "accumulation": self._accumulation,
            "resume": self._resume,
            "export": self._export,
            "tensorrt": self._tensorrt,
            "stages fp32": lambda: self._stages("fp32"),
            "stages fp16": lambda: self._stages("fp16"),
            "channels last": self._channels_last,
        }

    def run(self, only: list[str] | None = None) -> list[Outcome]:
        """Runs all, or those named and what they are compared with; an error of one is its outcome."""
        outcomes = []
        for name, check in self.all.items():
            if only and name not in only and name not in ("device", "train fp32"):
                continue
            try:
                text, figures = check()
                outcome = Outcome(name, "PASS", text, figures)
            except _Skipped as error:
                outcome = Outcome(name, "SKIP", str(error))
            except (_Failed, PaddleDnlError) as error:
                outcome = Outcome(name, "FAIL", str(error))
            logger.info(f"{outcome.status} {name}: {outcome.text}")
            outcomes.append(outcome)
        return outcomes

    def _device(self) -> tuple[str, dict]:
        self.device = self.bench.probe("device")
        return ", ".join(f"{key} {value}" for key, value in self.device.items()), self.device

    def _fp32(self) -> tuple[str, dict]:
        losses = self.bench.train("fp32")
        first, last = losses[0], end_of(losses)
        if last >= first:
            raise _Failed(f"the loss does not fall: {first:.4f} at first, {last:.4f} at the end")
        self._reference = losses
        return f"loss {first:.4f} -> {last:.4f} in {len(self._reference)} steps", {"losses": self._reference}

    def _half(self, precision: str, level: str) -> tuple[str, dict]:
        """The training in half precision against that in float32."""
        self._need_reference()
        losses = self.bench.train(f"{precision}_{level}", "--precision", precision, "--amp_level", level)
        return _near(losses, self._reference, PRECISION_LIMIT)

    def _need_reference(self) -> None:
        if not self._reference:
            raise _Skipped("nothing to compare with: the training in fp32 failed")

    def _attention(self) -> tuple[str, dict]:
        on_gpu = self.bench.place == "gpu"
        found = self.bench.probe("attention_ways", rows=8192 if on_gpu else 512, width=256)
        parts = []
        for name, figures in found.items():
            if name == "finite":
                continue
            limit = 1e-3 if name.endswith("float32") else 3e-2
            if figures.get("difference", 0.0) > limit:
                raise _Failed(f"{name} differs from plain by {figures['difference']:.2g} (limit {limit:g})")
            parts.append(f"{name}: {figures.get('skipped') or '{difference:.1e}, {milliseconds} ms'.format(**figures)}")
        if not found["finite"]:
            raise _Failed("logits beyond float16 give NaN")
        return "; ".join(parts), found

    def _logits(self) -> tuple[str, dict]:
        settings = {"config": str(self.bench.config), "weights": str(self.bench.weights), "crop": self.bench.crop}
        found = self.bench.probe("logits", precision="fp16", **settings)
        if found["same_class"] < 0.99:
            raise _Failed(f"under autocast only {found['same_class']:.2%} of pixels keep their class")
        margin = LARGEST_FLOAT16 / found["largest_logit"]
        return (
            f"largest {found['largest_logit']:.3g}, 1/{margin:.0f} of float16's range; {found['same_class']:.3%} same class",
            found,
        )

    def _cards(self) -> tuple[str, dict]:
        cards = self.device.get("cards", 2)
        if cards < 2:
            raise _Skipped("one card is visible")
        batch = ["--batch_size", "2", "--num_workers", "0"]
        flags = ("launch", "--nproc_per_node", str(cards), "--log_dir", str(self.bench.folder / "cards_log"))
        together = self.bench.train("cards", *batch, launch=flags)
        if self.bench.place == "cpu":
            return (
                f"2 processes, loss ends at {end_of(together):.4f}; not compared, since batch statistics are of each process",
                {},
            )
        alone = self.bench.train("one_card", "--batch_size", str(2 * cards), "--num_workers", "0")
        text, figures = _near(together, alone, ORDER_LIMIT)
        return f"{cards} cards against one: {text}", figures

    def _accumulation(self) -> tuple[str, dict]:
        self._need_reference()
        losses = self.bench.train("accumulation", "--batch_size", "1", "--opts", "grad_accum_iters=2")
        return _near(losses, self._reference, PRECISION_LIMIT)

    def _resume(self) -> tuple[str, dict]:
        self._need_reference()
        half = self.bench.steps // 2
        self.bench.train("resume", "--save_interval", str(half))
        resumed = self.bench.train("resumed", "--resume_model", str(self.bench.folder / f"resume/iter_{half}"))
        return _near(resumed, self._reference[half:], ORDER_LIMIT if self.bench.place == "gpu" else 1e-6)

    def _export(self) -> tuple[str, dict]:
        size = str(self.bench.crop)
        words = ["--config", str(self.bench.config), "--model_path", str(self.bench.weights)]
        words += ["--save_dir", str(self.bench.folder / "export"), "--input_shape", "1", "3", size, size]
        self.bench.program("export", "paddle_dnl", "export", *words)
        return self._compare_export()

    def _tensorrt(self) -> tuple[str, dict]:
        if self.bench.place != "gpu":
            raise _Skipped("TensorRT is for GPUs")
        return self._compare_export(use_trt=True)

    def _compare_export(self, **options) -> tuple[str, dict]:
        folder = self.bench.folder / "export"
        if not folder.is_dir():
            raise _Skipped("nothing was exported")
        model = {"config": str(self.bench.config), "weights": str(self.bench.weights), "size": self.bench.crop}
        found = self.bench.probe("exported", folder=str(folder), device=self.bench.place, **model, **options)
        if found["agreement"] < 0.999:
            raise _Failed(f"the exported graph gives {found['agreement']:.3%} of pixels the class of the dynamic one")
        return f"{found['agreement']:.3%} of pixels as in the dynamic graph", found

    def _stages(self, precision: str) -> tuple[str, dict]:
        settings = {"config": str(self.bench.config), "crop": self.bench.crop, "batch": 2}
        found = self.bench.probe("stages", precision=precision, **settings)
        parts = []
        for name, figures in found.items():
            shown = figures.get("skipped") or ", ".join(f"{key} {value}" for key, value in figures.items())
            parts.append(f"{name}: {shown}")
        return "; ".join(parts) + " (ms, MiB)", found

    def _channels_last(self) -> tuple[str, dict]:
        settings = {"config": str(self.bench.config), "crop": self.bench.crop, "batch": 2, "precision": "fp16"}
        found = self.bench.probe("channels_last", **settings)
        plain, other = found["NCHW"], found["NHWC"]
        # The first losses are of the same weights; later ones also of what the gradients made of them.
        for index, limit in ((0, ORDER_LIMIT), (-1, PRECISION_LIMIT)):
            distance = other["losses"][index] / plain["losses"][index] - 1
            if not abs(distance) <= limit:
                where = "last" if index else "first"
                raise _Failed(f"the {where} loss in NHWC is {distance:+.2%} from that in NCHW (limit {limit:.0%})")
        before, after = (sum(ways[part] for part in ("forward", "backward", "optimizer")) for ways in (plain, other))
        kind = "step" if other["in_use"] else "not in use on this device, both in NCHW: step"
        return f"{kind} {before:.1f} ms in NCHW, {after:.1f} ms in NHWC; last loss {distance:+.2%}", found


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as Markdown, with the verdict below."""
    lines = ["| Check | | Result |", "|---|---|---|"]
    lines += [f"| {outcome.name} | {outcome.status} | {outcome.text.replace('|', '/')} |" for outcome in outcomes]
    return "\n".join([*lines, "", verdict(outcomes)]) + "\n"


def verdict(outcomes: list[Outcome]) -> str:
    """One line that begins with PASS or FAIL."""
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in ("PASS", "FAIL", "SKIP")}
    word = "FAIL" if counts["FAIL"] else "PASS"
    return f"{word}: {counts['PASS']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped"


def write_report(folder: Path, outcomes: list[Outcome]) -> None:
    """results.md and results.json."""
    write_text(folder / "results.md", table(outcomes))
    write_text(folder / "results.json", json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
