# SPDX-License-Identifier: Apache-2.0
"""The ablation of the non-local block on generated street scenes: trains, scores and measures every variant.

    python tools/ablation.py                              # all variants, seeds 0 1 2; about an hour on one core
    python tools/ablation.py --stages statistics report   # measures and writes docs/ablation.md from what is there

Each step is a command that can be typed by itself; it is printed before it runs. A step whose result is there is passed
over, so the same command continues an interrupted experiment. A changed configuration makes a run invalid: the program
says so and stops.
"""

import argparse
import hashlib
import json
import re
import shlex
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from paddle_dnl.cli import _arguments  # noqa: E402
from paddle_dnl.cli._run import run as run_program  # noqa: E402
from paddle_dnl.errors import DataError, UsageError  # noqa: E402
from paddle_dnl.files.atomic import write_text  # noqa: E402

from quickstart import run  # noqa: E402

# In the order of the paper's argument.
VARIANTS = {
    "baseline": "no block",
    "nonlocal": "NL",
    "add_only": "add only",
    "separate_key": "separate key only",
    "pairwise_only": "pairwise only",
    "unary_only": "unary only",
    "dnl": "DNL",
}
STAGES = ("train", "evaluate", "statistics", "report")
# Of a boundary on each side, in pixels of 512x256.
QUERIES, BOUNDARY_WIDTH = 64, 2


def _read_result(path: Path) -> dict:
    """What an earlier call has stored; empty where there is nothing."""
    try:
        result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise DataError(f"{path}: is no result of this program ({error}); remove it") from error
    if not isinstance(result, dict) or (path.exists() and "config" not in result):
        raise DataError(f"{path}: is no result of this program; remove it")
    return result


class Run:
    """One variant with one seed: a folder with the weights and `result.json`."""

    def __init__(self, variant: str, seed: int, save_dir: Path):
        self.variant, self.seed = variant, seed
        self.config = f"configs/ablation/{variant}.yml"
        self.folder = save_dir / f"{variant}_seed{seed}"
        self.weights = self.folder / "model.pdparams"
        self.result_path = self.folder / "result.json"
        self.result = _read_result(self.result_path)
        self.iters, self.fingerprint = _fingerprint(self.config)
        if self.result and self.result["config"] != self.fingerprint:
            raise UsageError(f"{self.folder} was made with another {self.config}; remove it to train anew")

    def _keep(self, **values) -> None:
        self.result = {"config": self.fingerprint, "variant": self.variant, "seed": self.seed, **self.result, **values}
        write_text(self.result_path, json.dumps(self.result, indent=1) + "\n")

    def train(self) -> None:
        """Trains to the last iteration. No checkpoint is chosen by its score: the last one counts."""
        if "train_seconds" in self.result:
            return
        began = time.perf_counter()
        run(
            f"python train.py --config {self.config} --seed {self.seed} --save_interval {self.iters} --log_iters 20 "
            f"--keep_checkpoint_max 1 --save_dir {shlex.quote(str(self.folder))}"
        )
        seconds = time.perf_counter() - began
        last = self.folder / f"iter_{self.iters}"
        (last / "model.pdparams").replace(self.weights)
        for file in last.iterdir():  # the optimizer state is three times the size of all that is read again
            file.unlink()
        last.rmdir()
        self._keep(train_seconds=round(seconds, 1), iters=self.iters)

    def evaluate(self) -> None:
        """mIoU and pixel accuracy on the validation images, single scale."""
        if "miou" in self.result:
            return
        text = run(f"python val.py --config {self.config} --model_path {shlex.quote(str(self.weights))}")
        miou, acc = re.findall(r"\[EVAL\] #Images: \d+ mIoU: ([\d.]+) Acc: ([\d.]+)", text)[-1]
        self._keep(miou=float(miou), acc=float(acc))

    def statistics(self) -> None:
        """Overlap of attention and labels; the model without a block has none."""
        if self.variant == "baseline" or "statistics" in self.result:
            return
        run(
            f"python tools/attention_statistics.py --config {self.config} --model_path {shlex.quote(str(self.weights))} "
            f"--queries {QUERIES} --boundary_width {BOUNDARY_WIDTH} --seed 0 --save_dir {shlex.quote(str(self.folder))}"
        )
        found = json.loads((self.folder / "attention_statistics.json").read_text())
        self._keep(statistics=found[Path(self.config).stem])


def _fingerprint(config: str) -> tuple[int, str]:
    """Iterations, and a digest of the resolved configuration."""
    from paddle_dnl.config import Config

    resolved = Config(ROOT / config)
    return resolved.iters, hashlib.sha256(json.dumps(resolved.dic, sort_keys=True).encode()).hexdigest()[:16]


def _spread(values: list[float], digits: int = 3) -> str:
    """Mean ± standard deviation over seeds."""
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def score_table(results: list[dict]) -> str:
    """Markdown: mIoU of each variant by seed, mean ± standard deviation, and the difference to the baseline, seed by seed."""
    seeds = sorted({result["seed"] for result in results})
    scores = {(result["variant"], result["seed"]): result["miou"] for result in results}
    lines = ["| variant | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean ± sd | minus baseline |"]
    lines.append("|---" * (len(seeds) + 3) + "|")
    for variant, title in VARIANTS.items():
        found = {seed: scores[variant, seed] for seed in seeds if (variant, seed) in scores}
        gains = [score - scores["baseline", seed] for seed, score in found.items() if ("baseline", seed) in scores]
        cells = [f"{found[seed]:.4f}" if seed in found else "-" for seed in seeds]
        gain = "-" if variant == "baseline" else _spread(gains)
        lines.append(f"| {title} | " + " | ".join([*cells, _spread(list(found.values())), gain]) + " |")
    return "\n".join(lines) + "\n"


def statistics_table(results: list[dict]) -> str:
    """Markdown: each measure of attention, mean ± standard deviation over seeds; first the even attention."""
    from paddle_dnl.analysis.chart import COLUMNS, random_row

    measured = [result for result in results if "statistics" in result]
    if not measured:
        return "No attention statistics yet.\n"
    lines = ["| variant | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    even = random_row({"any": measured[0]["statistics"]})
    cells = [f"{even[column]['mean']:.3f}" if column in even else "-" for column in COLUMNS]
    lines.append("| even attention (random) | " + " | ".join(cells) + " |")
    for variant, title in VARIANTS.items():
        runs = [result["statistics"]["measures"] for result in measured if result["variant"] == variant]
        if runs:
            found = [_spread([run[column]["mean"] for run in runs if column in run]) for column in COLUMNS]
            lines.append(f"| {title} | " + " | ".join(found) + " |")
    return "\n".join(lines) + "\n"


def write_report(results: list[dict], page: Path) -> None:
    """Puts the tables between the marks of the page, and all numbers into a JSON file beside it."""
    text = page.read_text(encoding="utf-8")
    for name, table in (("scores", score_table(results)), ("statistics", statistics_table(results))):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise UsageError(f"{page} must hold the lines '{begin.strip()}' and '{end}' once")
        text = text[: text.index(begin) + len(begin)] + "\n" + table + "\n" + text[text.index(end) :]
    write_text(page, text, own=True)
    write_text(page.with_suffix(".json"), json.dumps(results, indent=1) + "\n", own=True)
    print(f"{len(results)} runs: {page} and {page.with_suffix('.json').name}")


def main(argv=None) -> int:
    """Runs the stages, seed after seed, so that an interrupted experiment compares all variants on equal terms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save_dir", default="output/ablation", help="folder of the runs")
    parser.add_argument("--seeds", nargs="+", type=_arguments.seed, default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--report", default="docs/ablation.md", help="page whose tables are written")
    args = parser.parse_args(argv)
    save_dir = (ROOT / args.save_dir).resolve()
    runs = [Run(variant, seed, save_dir) for seed in args.seeds for variant in args.variants]
    for one in runs:
        for stage, needed in (("train", None), ("evaluate", "train_seconds"), ("statistics", "miou")):
            if stage in args.stages and (needed is None or needed in one.result):
                getattr(one, stage)()
    if "report" in args.stages:
        write_report([one.result for one in runs if "miou" in one.result], (ROOT / args.report).resolve())
    return 0


if __name__ == "__main__":
    run_program("ablation")
