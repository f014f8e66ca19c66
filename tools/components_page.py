# SPDX-License-Identifier: Apache-2.0
"""Writes docs/components.md, the reference of all configuration keys, from signatures and docstrings."""

import argparse
import importlib
import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from paddle_dnl import optim, registry  # noqa: E402
from paddle_dnl.cli._run import run  # noqa: E402
from paddle_dnl.config import checks  # noqa: E402
from paddle_dnl.errors import ConfigError, DataError  # noqa: E402
from paddle_dnl.files.atomic import write_text  # noqa: E402

import paddle  # noqa: E402

PAGE = ROOT / "docs" / "components.md"
TOP_LEVEL = {
    "batch_size": "images per process in a batch",
    "iters": "number of training iterations",
    "train_dataset": "training data: a [dataset](#datasets) with its [transforms](#transforms)",
    "val_dataset": "validation data, for `--do_eval` and val.py; predict.py applies its transforms to pictures",
    "optimizer": "an [optimizer](#optimizers)",
    "lr_scheduler": "a [learning rate schedule](#learning-rate-schedules)",
    "loss": "`types`: list of [losses](#losses), one per output of the model or one for all; `coef`: list of their weights",
    "model": "a [model](#models), usually with a [backbone](#backbones)",
    "test_config": "evaluation settings, see [below](#test_config)",
    "to_static_training": "`true`: train with a static graph",
    "export": "`transforms` of the exported model, if they differ from those of `val_dataset`",
    "grad_accum_iters": "gradient accumulation: number of batches per update of the weights",
    "ema_decay": "decay of the exponential moving average of the weights (`--use_ema`)",
    "pretrained_sha256": "expected SHA-256 of downloaded start weights",
    "start_weights": "`file`, `from` and `source` of the start weights of a published recipe",
    "custom_imports": "files and modules with your components; the key alone imports nothing, see [extending](extending.md)",
    "print_mem_info": "`true` or `false`: log the memory in use, like the flag of the same name",
    "log_ranks": "ranks that write log lines, like the flag of the same name",
    "class_weights": "`auto` (median class frequency / frequency of the class, limited to 0.1 to 10), or one number per class",
    "freeze": "`backbone`, `{stages: N}` (stem and first N stages) or a list of layers, see [training](training.md#fine-tuning)",
    "find_unused_parameters": "`auto` (default): found with one batch; `true`: if some iterations give a parameter no gradient",
    "_base_": "a file, or a list, whose values this file overrides; `_inherited_: false` discards a section's inherited keys",
}
TEST_CONFIG = {
    "aug_eval": "`true`: test-time augmentation, the average over `scales` and flips",
    "scales": "scale factor or list of scale factors, for `aug_eval`",
    "flip_horizontal": "`true`: also flip horizontally, for `aug_eval`",
    "flip_vertical": "`true`: also flip vertically, for `aug_eval`",
    "is_slide": "`true`: average over sliding windows",
    "crop_size": "[width, height] of a sliding window",
    "stride": "[x, y] distance of sliding windows",
    "average": "`logits` (PaddleSeg), `softmax` (mmsegmentation), `official` (DNL authors), see [evaluation](evaluation.md)",
    "align_corners": "`true`: resize the logits to the size of the picture with aligned corners",
    "auc_roc": "`true`: also compute the area under the ROC curve",
    "batch_size": "pictures of equal size that are evaluated at once",
    "use_multilabel": "`true`: multi-label segmentation, one mask per class, like the flag of the same name",
    "while_training": "mapping of keys of this table: values for the evaluations during training",
}
OF_OPTIMIZERS = dict.fromkeys(
    ("beta1", "beta2", "epsilon", "use_lowprecision_moment", "lazy_mode", "multi_precision", "amsgrad"), "as in Paddle"
) | {
    "weight_decay": "factor of the decay, or `L2Decay` and `L1Decay` as a mapping",
    "grad_clip_cfg": "gradient clipping: `name`, a class of Paddle such as `ClipGradByGlobalNorm`, and its arguments",
    "custom_cfg": "list of groups: `name` (part of a parameter's name) or `pattern`, `lr_mult`, `weight_decay_mult`",
}
EXAMPLE = """\
batch_size: 4
iters: 20000
train_dataset:
  type: Dataset
  dataset_root: data/mine
  train_path: data/mine/train.txt
  num_classes: 3                    # also for the model
  ignore_index: 255                 # also for transforms, losses, metrics and the export
  class_names: [background, road, car]
  class_colors: [[0, 0, 0], [128, 64, 128], [0, 0, 142]]
  mode: train
  transforms:
    - {type: ResizeStepScaling, min_scale_factor: 0.5, max_scale_factor: 2.0, scale_step_size: 0.25}
    - {type: RandomPaddingCrop, crop_size: [512, 512]}
    - {type: RandomHorizontalFlip}
    - {type: RandomDistort, brightness_range: 0.4, contrast_range: 0.4, saturation_range: 0.4}
    - {type: Normalize, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
val_dataset:
  type: Dataset
  dataset_root: data/mine
  val_path: data/mine/val.txt
  num_classes: 3
  class_names: [background, road, car]
  class_colors: [[0, 0, 0], [128, 64, 128], [0, 0, 142]]
  mode: val
  transforms:
    - {type: Normalize, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
model:
  type: DNLNet
  dialect: mmseg
  enable_auxiliary_loss: true
  backbone:
    type: ResNet50
    output_stride: 8
    pretrained: resnet50_vd_ssld_v2.pdparams   # start weights; null: random initialisation
loss:
  types: [{type: CrossEntropyLoss}]
  coef: [1, 0.4]                    # weights of the main and the auxiliary output
optimizer:
  type: SGD
  momentum: 0.9
  weight_decay: 4.0e-5
lr_scheduler:
  type: PolynomialDecay
  learning_rate: 0.01
  end_lr: 0
  power: 0.9
  warmup_iters: 500
  warmup_start_lr: 1.0e-5
test_config:
  aug_eval: false
"""


def documented(component) -> tuple[str, dict[str, str]]:
    """The first paragraph of a docstring, and the text of each argument that it or the class it refers to describes."""
    text = inspect.getdoc(component) or ""
    first = " ".join(text.split("\n\n")[0].split())
    found: dict[str, str] = {}
    section = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)+)", text, re.M)
    for entry in re.findall(r"^    (\S[^\n]*(?:\n     +[^\n]*)*)", section[1] if section else "", re.M):
        names, _, meaning = entry.partition(":")
        found |= dict.fromkeys(re.split(r",\s*", names.strip()), " ".join(meaning.split()))
    if inspect.isclass(component) and component.__base__ is not object:
        own = {key: text for key, text in found.items() if not text.startswith("see `")}
        found = found | documented(component.__base__)[1] | own
    if not found and "data_format" in inspect.signature(component).parameters:
        found = {"data_format": "only `NCHW`"}
    found = {key: _followed(key, text, component) for key, text in found.items()}
    referred = re.search(r"\bsee `(\w+)`", first)
    module = sys.modules.get(component.__module__)
    if referred and hasattr(module, referred[1]):
        found = documented(getattr(module, referred[1]))[1] | found
    return first, found


def _followed(key: str, text: str, component) -> str:
    """The text itself, or for `see X` what X says of the same key."""
    link = re.fullmatch(r"(?:.*, )?see `([\w.]+)`\.?", text)
    if link is None:
        return text
    owner = sys.modules.get(component.__module__)
    for name in link[1].split("."):
        if not hasattr(owner, name) and name != "paddle_dnl":
            return text
        owner = importlib.import_module(name) if name == "paddle_dnl" else getattr(owner, name)
    owner = getattr(owner, link[1].split(".")[-1], owner) if inspect.ismodule(owner) else owner
    return documented(owner)[1].get(key, text) if callable(owner) else text


def _shown(default) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    if isinstance(default, tuple):
        default = list(default)
    return f"`{'null' if default is None else str(default).lower() if isinstance(default, bool) else default}`"


def keys_of(component) -> dict[str, tuple[str, str]]:
    """Key -> its default as YAML, and its meaning."""
    meanings = OF_OPTIMIZERS | documented(component)[1]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    given = {name: p for name, p in inspect.signature(component).parameters.items() if p.kind in kinds}
    return {name: (_shown(p.default), meanings.get(name, "")) for name, p in given.items()}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _component(name: str, component) -> list[str]:
    lines = [f"### {name}", "", documented(component)[0], ""]
    keys = keys_of(component)
    if keys:
        lines += ["| key | default | meaning |", "|---|---|---|"]
        lines += [f"| `{key}` | {_cell(default)} | {_cell(text)} |" for key, (default, text) in keys.items()]
        lines += [""]
    return lines


def _table(keys: dict[str, str]) -> list[str]:
    return ["| key | meaning |", "|---|---|", *(f"| `{key}` | {_cell(text)} |" for key, text in keys.items()), ""]


def _of_paddle(classes: dict[str, type], leave_out: set[str]) -> list[str]:
    rows = []
    for name, cls in sorted(classes.items()):
        parameters = inspect.signature(cls).parameters
        keys = [
            f"`{key}`" if p.default is p.empty else f"`{key}` ({_shown(p.default)})"
            for key, p in parameters.items()
            if key not in leave_out and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
        rows.append(f"| `{name}` | {_cell(', '.join(keys))} |")
    return ["| type | keys (and defaults) |", "|---|---|", *rows, ""]


def own_components(kind: str) -> dict[str, object]:
    """Name -> component of this package, sorted by name."""
    registry.load_components()
    found = registry.REGISTRIES[kind].components_dict
    return {name: found[name] for name in sorted(found) if found[name].__module__.startswith("paddle_dnl")}


def make_page() -> str:
    """The text of the page."""
    for keys, wanted in (
        (TOP_LEVEL, {*checks._REQUIRED, *checks._OPTIONAL, "_base_"}),
        (TEST_CONFIG, set(checks._TEST_KEYS)),
    ):
        if set(keys) != wanted:
            raise SystemExit(f"tools/components_page.py: describe the keys {sorted(set(keys) ^ wanted)}")
    lines = [
        "# Every key of a configuration", "",
        "<!-- Written by tools/components_page.py from signatures and docstrings; change those, and run it again. -->", "",
        "A configuration is a YAML file with PaddleSeg's keys. A component (dataset, transform, model, ...) is a mapping:",
        "`type` is its name, the other keys are its arguments. This page lists the components of this package.",
        "[Your own](extending.md) and, if it is installed, PaddleSeg's ([comparison](comparison.md)) are used in the same way.",
        "An unknown key, type or value is an error that names the file, the key (such as `model.backbone.type`) and the",
        "nearest valid name. `--opts KEY=VALUE` overrides values, for instance `--opts model.backbone.output_stride=16`.", "",
        "## A complete file", "", "```yaml", EXAMPLE.rstrip(), "```", "",
        "## Top level", "", *_table(TOP_LEVEL), "### test_config", "", *_table(TEST_CONFIG),
    ]  # fmt: skip
    for title, kind in (
        ("Datasets", "dataset"), ("Transforms", "transform"), ("Models", "model"), ("Backbones", "backbone"), ("Losses", "loss"),
    ):  # fmt: skip
        lines += [f"## {title}", ""]
        for name, component in own_components(kind).items():
            lines += _component(name, component)
    lines += [
        "## Optimizers", "",
        f"Those of Paddle {paddle.__version__}, and two of PaddleSeg. `SGD` with a `momentum` is `Momentum`. All have",
        f"`custom_cfg`, parameter groups with a learning rate and weight decay of their own ({OF_OPTIMIZERS['custom_cfg']}),",
        f"and `grad_clip_cfg`, {OF_OPTIMIZERS['grad_clip_cfg']}.", "",
    ]  # fmt: skip
    optimizers = registry.REGISTRIES["optimizer"].components_dict
    ours = {name: cls for name, cls in sorted(optimizers.items()) if "DL" in name}
    for name, component in ours.items():
        lines += _component(name, component)
    paddles = {name: cls for name, cls in optimizers.items() if name not in ours}
    lines += _of_paddle(paddles, {"parameters", "learning_rate", "name"})
    lines += [
        "## Learning rate schedules", "",
        f"Those of Paddle {paddle.__version__} (`paddle.optimizer.lr`). With `warmup_iters` and `warmup_start_lr` each of",
        "them begins with a linear warm-up. `PolynomialDecay` reaches `end_lr` in the last iteration unless `decay_steps` is",
        "given.", "",
    ]  # fmt: skip
    module = paddle.optimizer.lr
    schedules = {}
    for name in vars(module):
        try:
            cls = optim.schedule_class(name)
        except ConfigError:  # not a schedule, or one that configurations cannot use
            continue
        # YAML holds no functions, and warm-ups have keys of their own.
        if name not in ("LambdaDecay", "MultiplicativeDecay", "LinearWarmup"):
            schedules[name] = cls
    lines += _of_paddle(schedules, {"last_epoch", "verbose"})
    return "\n".join(lines).rstrip() + "\n"


def main(argv=None) -> int:
    """Writes the page, or compares it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the page is not current")
    args = parser.parse_args(argv)
    text = make_page()
    if args.check:
        if PAGE.read_text(encoding="utf-8") != text:
            raise DataError(f"{PAGE}: not current; run python tools/components_page.py")
        return 0
    write_text(PAGE, text, own=True)
    return 0


if __name__ == "__main__":
    run("components_page")
