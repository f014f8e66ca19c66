# SPDX-License-Identifier: Apache-2.0
"""Configurations with a mistake in them: each error names the file and the key and says what would be right."""

import time

from paddle_dnl import registry
from paddle_dnl.config import Config
from paddle_dnl.errors import ConfigError
from paddle_dnl.losses import build_losses
from paddle_dnl.optim import build_lr_scheduler, build_optimizer

import paddle
import pytest

MODEL = "model: {type: DNLNet, num_classes: 3, backbone: {type: ResNet18, output_stride: 8}}"
CROP = "    - {type: RandomPaddingCrop, crop_size: [32, 32]}"
OPTIMIZER = "optimizer: {type: SGD, momentum: 0.9, weight_decay: 4e-5}"
SCHEDULE = "lr_scheduler: {type: PolynomialDecay, learning_rate: 0.01, end_lr: 0, power: 0.9}"
LOSS = "loss: {types: [{type: CrossEntropyLoss}], coef: [1, 0.4]}"
BASE = f"""batch_size: 2
iters: 10
{MODEL}
train_dataset:
  type: Dataset
  dataset_root: DATA
  train_path: DATA/train.txt
  num_classes: 3
  mode: train
  transforms:
{CROP}
    - {{type: Normalize}}
{OPTIMIZER}
{SCHEDULE}
{LOSS}
"""

# Text of BASE -> what a person wrote in its place; the key that the error names; words of the advice.
MISTAKES = {
    # ---- top level
    "batch size of 0": ("batch_size: 2", "batch_size: 0", "batch_size: must be a positive integer, got 0"),
    "negative batch size": ("batch_size: 2", "batch_size: -2", "batch_size: must be a positive integer, got -2"),
    "batch size in words": ("batch_size: 2", "batch_size: two", "batch_size: must be a positive integer, got 'two'"),
    "batch size as text": ("batch_size: 2", "batch_size: '2'", "batch_size: must be a positive integer, got '2'"),
    "batch size as list": ("batch_size: 2", "batch_size: [2]", "batch_size: must be a positive integer"),
    "iterations with a fraction": ("iters: 10", "iters: 1e4", "iters: must be a positive integer"),
    "iterations with thousands": ("iters: 10", "iters: 80,000", "iters: must be a positive integer, got '80,000'"),
    "iterations left empty": ("iters: 10", "iters:", "iters: missing"),
    "iterations infinite": ("iters: 10", "iters: .inf", "iters: must be a positive integer"),
    "key in another case": ("batch_size: 2", "Batch_Size: 2", "Batch_Size: unknown key. Did you mean 'batch_size'?"),
    "key of another toolkit": ("iters: 10", "iters: 10\nepochs: 5", "epochs: unknown key"),
    "section missing": (OPTIMIZER, "", "optimizer: missing"),
    "section twice": (OPTIMIZER, f"{OPTIMIZER}\noptimizer: {{type: Adam}}", "key 'optimizer' is given twice"),
    "section as text": (OPTIMIZER, "optimizer: SGD", "optimizer: expected a mapping with a `type` key"),
    "section as list": (LOSS, "loss: [CrossEntropyLoss]", "loss: expected a mapping with `types` and `coef`"),
    "number as key": ("iters: 10", "iters: 10\n5: 6", "5: unknown key"),
    "accumulation of 1.5": (
        "iters: 10", "iters: 10\ngrad_accum_iters: 1.5",
        "grad_accum_iters: must be a positive integer"),
    "average of 1": ("iters: 10", "iters: 10\nema_decay: 1", "ema_decay: must be a number in [0, 1)"),
    "static in words": (
        "iters: 10", "iters: 10\nto_static_training: maybe",
        "to_static_training: must be true or false"),
    # ---- model
    "model unknown": ("DNLNet", "DNL", "model.type: there is no model named 'DNL'. Did you mean"),
    "model without type": ("type: DNLNet, ", "", "model: expected a mapping with a `type` key"),
    "model type as number": ("type: DNLNet", "type: 5", "model: expected a mapping with a `type` key"),
    "model argument unknown": (
        "num_classes: 3, back", "num_class: 3, back",
        "model.num_class: unknown key. Did you mean 'num_classes'?"),
    "model argument empty": (
        ", output_stride: 8", ", output_stride: ",
        "model: DNLNet could not be built|model.backbone"),
    "backbone as text": ("backbone: {type: ResNet18, output_stride: 8}", "backbone: ResNet18", "model"),
    "backbone unknown": (
        "ResNet18", "ResNet19",
        "model.backbone.type: there is no backbone named 'ResNet19'. Did you mean"),
    "backbone missing": (
        ", backbone: {type: ResNet18, output_stride: 8}", "",
        "model.backbone: missing; DNLNet needs it"),
    "output stride of 7": ("output_stride: 8", "output_stride: 7", "model.backbone: .*output_stride"),
    "dialect unknown": ("DNLNet, ", "DNLNet, dialect: tensorflow, ", "model: .*dialect"),
    "no classes": ("num_classes: 3\n", "num_classes: 0\n", "num_classes"),
    "numbers of classes disagree": (
        "{type: DNLNet, num_classes: 3", "{type: DNLNet, num_classes: 19",
        "numbers of classes disagree: .*model.num_classes = 19"),
    # ---- data
    "dataset unknown": (
        "type: Dataset", "type: Datasets",
        "train_dataset.type: there is no dataset named 'Datasets'. Did you mean 'Dataset'?"),
    "dataset argument unknown": ("train_path:", "train_list:", "train_dataset.train_list: unknown key. Did you mean"),
    "dataset_root left out": ("  dataset_root: DATA\n", "", "train_dataset.dataset_root: missing; Dataset needs it"),
    "transforms as mapping": (
        f"{CROP}\n    - {{type: Normalize}}", "    type: Normalize",
        "train_dataset.transforms: expected a list of mappings"),
    "transform as text": ("{type: Normalize}", "Normalize", "train_dataset.transforms: expected a list of mappings"),
    "transform unknown": (
        "type: Normalize", "type: Normalise",
        "train_dataset.transforms.1.type: there is no transform named 'Normalise'. Did you mean 'Normalize'?"),
    "transform argument unknown": (
        "crop_size", "cropsize",
        "train_dataset.transforms.0.cropsize: unknown key. Did you mean 'crop_size'?"),
    "crop of one number": ("[32, 32]", "32", "train_dataset.transforms.0"),
    "crop as text": ("[32, 32]", "'32x32'", "train_dataset.transforms.0"),
    "mean of two channels": (
        "{type: Normalize}", "{type: Normalize, mean: [0.5, 0.5]}",
        "train_dataset.transforms.1.mean: must be a list of 3 numbers"),
    "std of zero": ("{type: Normalize}", "{type: Normalize, std: [0, 0.5, 0.5]}", "train_dataset.transforms.1"),
    "list indented by a tab": (CROP, f"\t{CROP}", "not a valid configuration"),
    "ignored label disagrees": (
        "{type: CrossEntropyLoss}", "{type: CrossEntropyLoss, ignore_index: 0}",
        "ignore_index disagree"),
    # ---- optimizer and schedule
    "optimizer unknown": (
        "type: SGD", "type: Adamw2",
        "optimizer.type: there is no optimizer named 'Adamw2'. Did you mean"),
    "optimizer argument unknown": (
        "momentum: 0.9", "momentun: 0.9",
        "optimizer.momentun: unknown key. Did you mean 'momentum'?"),
    "momentum in words": (
        "momentum: 0.9", "momentum: high",
        "optimizer.momentum: must be a number from 0 to 1, got 'high'"),
    "decay below zero": (
        "weight_decay: 4e-5", "weight_decay: -4e-5",
        "optimizer.weight_decay: must be a number from 0"),
    "decay in words": (
        "weight_decay: 4e-5", "weight_decay: small",
        "optimizer.weight_decay: must be a number from 0, got 'small'"),
    "schedule unknown": (
        "PolynomialDecay", "PolyDecay",
        "lr_scheduler.type: no schedule 'PolyDecay'. Did you mean 'PolynomialDecay'?"),
    "schedule without type": ("type: PolynomialDecay, ", "", "lr_scheduler: expected a mapping with a `type` key"),
    "schedule argument unknown": ("end_lr", "min_lr", "lr_scheduler.min_lr: unknown key. Did you mean 'end_lr'?"),
    "rate that is no number": ("0.01, end", ".nan, end", "lr_scheduler.learning_rate: must be a finite number"),
    "rate below zero": ("0.01, end", "-0.01, end", "lr_scheduler.learning_rate: must be a number from 0"),
    "rate with a comma": (
        "learning_rate: 0.01", "learning_rate: '0,01'",
        "lr_scheduler.learning_rate: must be a number from 0"),
    "power in words": ("power: 0.9", "power: nine", "lr_scheduler.power: must be a number, got 'nine'"),
    "warm-up without start": ("power: 0.9", "power: 0.9, warmup_iters: 5", "lr_scheduler.warmup_start_lr: missing"),
    # ---- losses
    "losses as text": ("[{type: CrossEntropyLoss}]", "CrossEntropyLoss", "loss.types: expected a list of losses"),
    "no losses": ("[{type: CrossEntropyLoss}]", "[]", "loss.types: expected a list of losses"),
    "loss unknown": (
        "CrossEntropyLoss", "CrossEntropy",
        "loss.types.0.type: there is no loss named 'CrossEntropy'. Did you mean"),
    "loss argument unknown": (
        "{type: CrossEntropyLoss}", "{type: CrossEntropyLoss, weights: 1}",
        "loss.types.0.weights: unknown key. Did you mean 'weight'?"),
    "coefficients as number": ("coef: [1, 0.4]", "coef: 1", "loss.coef: expected a list of numbers"),
    "no coefficients": ("coef: [1, 0.4]", "coef: []", "loss.coef"),
    "coefficient infinite": ("coef: [1, 0.4]", "coef: [1, .inf]", "loss.coef: expected a list of numbers"),
    "two losses, three coefficients": (
        "[{type: CrossEntropyLoss}], coef: [1, 0.4]", "[{type: CrossEntropyLoss}, {type: DiceLoss}], coef: [1, 1, 1]",
        "loss.types: 2 losses for 3 coef; give one, or one per coef"),
    "loss with a word for coef": ("coef: [1, 0.4]", "coef: coefficient", "loss.coef: expected a list of numbers"),
}  # fmt: skip

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k0: 1, k1: 1}\n" + "".join(
    f"m{i}: &m{i} {{<<: [{', '.join(['*a' if i == 0 else f'*m{i - 1}'] * 10)}]}}\n" for i in range(9)
)
# Files that want to run code or to fill the memory, as a configuration and as a deploy.yaml.
HOSTILE = {
    "apply": "a: !!python/object/apply:os.system ['touch marker']\n",
    "new object": "a: !!python/object/new:os.system ['touch marker']\n",
    "object": "a: !!python/object:subprocess.Popen {args: touch marker}\n",
    "name": "a: !!python/name:os.system\n",
    "module": "a: !!python/module:antigravity\n",
    "tuple": "a: !!python/tuple [1, 2]\n",
    "own tag": "!config {a: 1}\n",
    "tag of a tag": "%TAG ! tag:yaml.org,2002:python/\n---\na: !object/apply:os.system ['touch marker']\n",
    "binary": "a: !!binary |\n  @@@@\n",
    "alias bomb": BOMB,
    "merge bomb": MERGES,
    "alias of itself": "a: &a {b: *a}\n",
    "alias of nothing": "a: *b\n",
    "3,000 deep": "a: " + "[" * 3000 + "]" * 3000,
    "100,000 open brackets": "[" * 100_000,
    "20,000 dashes": "- " * 20_000,
    "200,000 digits": "a: " + "9" * 200_000,
    "2 MB": "a: 1\n" * 400_000,
    "200 KB of keys": "".join(f"k{i}: 1\n" for i in range(20_000)),
    "200 KB of anchors": "a:\n" + "".join(f"- &n{i} 1\n" for i in range(15_000)),
    "zero bytes": "a: 1\0b: 2",
    "two documents": "a: 1\n---\nb: 2\n",
    "key that is a mapping": "? {a: 1}\n: 2\n",
    "text": "just words\n",
}


@pytest.fixture
def write(tmp_path):
    """Writes a configuration beside a small dataset."""
    (tmp_path / "train.txt").write_text("a.png b.png\n")

    def to(text: str):
        path = tmp_path / "mistaken.yml"
        path.write_text(text.replace("DATA", str(tmp_path)))
        return path

    return to


def _use(path):
    """What a training does with its configuration before the first step."""
    config = Config(path)
    with config.named_in_errors():
        registry.build(config.train_dataset_cfg, "dataset", "train_dataset")
        model = registry.build(config.model_cfg, "model")
        build_losses(config.loss_cfg)
        build_optimizer(config.optimizer_cfg, model, build_lr_scheduler(config.lr_scheduler_cfg, config.iters))


def test_the_base_of_all_cases_is_right(write):
    _use(write(BASE))


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_with_file_and_key(write, name):
    right, wrong, says = MISTAKES[name]
    assert right in BASE
    with pytest.raises(ConfigError) as caught:
        _use(write(BASE.replace(right, wrong, 1)))
    text = str(caught.value)
    assert "mistaken.yml" in text
    assert says in text or pytest.raises(AssertionError, match=says).matches(AssertionError(text)), text
    assert paddle.in_dynamic_mode()


def test_there_are_at_least_60():
    assert len(MISTAKES) >= 60


# Both kinds of file go through the same reader; what takes it seconds is tried once in a quick run.
LONG = ("3,000 deep", "100,000 open brackets", "200 KB of keys", "200 KB of anchors")
FILES = [
    pytest.param(kind, name, marks=pytest.mark.slow if kind == "deploy.yaml" and name in LONG else ())
    for kind in ("mistaken.yml", "deploy.yaml")
    for name in HOSTILE
]


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_hostile_yaml(tmp_path, monkeypatch, name, kind):
    from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config

    monkeypatch.chdir(tmp_path)
    (tmp_path / kind).write_text(HOSTILE[name])
    began = time.monotonic()
    with pytest.raises(ConfigError, match=kind) as caught:
        (Config if kind == "mistaken.yml" else read_deploy_config)(tmp_path / kind)
    assert len(str(caught.value)) < 2000
    assert time.monotonic() - began < 60 and [p.name for p in tmp_path.iterdir()] == [kind]
